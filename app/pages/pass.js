/* A pass for the reader at a door, renewed while somebody looks. Loaded when asked for. */
'use strict';
window.yizhanPass = function (call, t, $, problem, door) {
  var RENEW_MS = 30000;
  var RETRY_MS = 3000;
  var GOOD_MS = 60000;
  var run = {};
  var drawnAt = 0;
  var timer = null;
  window.yizhanPass.run = run;
  function live() { return window.yizhanPass.run === run && !$('pass').hidden; }
  function stop() {
    clearTimeout(timer);
    document.removeEventListener('visibilitychange', seen);
    $('pass-code').textContent = '';
  }
  function renew() {
    clearTimeout(timer);
    if (!live()) { stop(); return; }
    if (document.visibilityState !== 'visible') { return; }
    call('POST', '/v1/me/pass', { door: door }).then(function (answer) {
      if (!live()) { stop(); return; }
      if (answer.status === 201) {
        drawnAt = Date.now();
        /* Drawn by our own server: one path, no text. */
        $('pass-code').innerHTML = answer.body.svg;
        $('pass-note').textContent = t('passNote');
        timer = setTimeout(renew, RENEW_MS);
        return;
      }
      if (answer.status !== 0 && answer.status < 500 && answer.status !== 429) {
        $('pass-code').textContent = '';
        $('pass-note').textContent = problem(answer);
        return;
      }
      if (Date.now() - drawnAt > GOOD_MS) {
        $('pass-code').textContent = '';
        $('pass-note').textContent = answer.status === 0 ? t('passLost') : problem(answer);
      }
      timer = setTimeout(renew, 1000 * answer.retryAfter || RETRY_MS);
    });
  }
  function seen() { if (document.visibilityState === 'visible') { renew(); } }
  $('refused').hidden = true;
  $('pass').hidden = false;
  $('pass-note').textContent = t('loading');
  $('pass-close').onclick = function () { $('pass').hidden = true; $('refused').hidden = false; stop(); };
  document.addEventListener('visibilitychange', seen);
  renew();
};
