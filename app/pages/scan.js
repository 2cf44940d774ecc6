/* The page behind a door's code: sign in once, open, show which of the four facts is true. */
'use strict';
(function () {
  var CONSENT_VERSION = '2026-12';
  var NOT_ANSWERED_AFTER_S = 3;
  var RESEND_S = 60;
  var token = readable(location.pathname.replace(/^\/s\//, ''));
  var lang = stored('yizhan.lang') || (/^zh/i.test(navigator.language || 'zh') ? 'zh' : 'en');
  var challenge = null;
  var visitId = null;
  var passDoor = null;
  var run = 0;
  var timer = null;
  var resendTimer = null;

  function readable(text) { try { return decodeURIComponent(text); } catch (e) { return text; } }
  function $(id) { return document.getElementById(id); }
  function t(key) { return window.WORDS[lang][key]; }
  function stored(key) { try { return localStorage.getItem(key); } catch (e) { return null; } }
  function store(key, value) { try { localStorage.setItem(key, value); } catch (e) { /* Private mode: the page works without. */ } }
  function show(id, on) { $(id).hidden = !on; }
  function only(id) {
    ['wait', 'phone-form', 'code-form', 'ready', 'progress', 'refused', 'pass'].forEach(function (other) { show(other, other === id); });
    fail('');
  }
  function fail(text) { $('error').textContent = text; show('error', !!text); }
  function hex(bytes) {
    var random = crypto.getRandomValues(new Uint8Array(bytes));
    return Array.prototype.map.call(random, function (b) { return ('0' + b.toString(16)).slice(-2); }).join('');
  }

  function speak() {
    document.documentElement.lang = lang === 'zh' ? 'zh-CN' : 'en';
    document.querySelectorAll('[data-t]').forEach(function (node) { node.textContent = t(node.getAttribute('data-t')); });
    /* Chinese first; a button says it in English too. */
    document.querySelectorAll('.main[data-t]').forEach(function (node) {
      if (lang !== 'zh') { return; }
      var small = document.createElement('small');
      small.lang = 'en';
      small.textContent = window.WORDS.en[node.getAttribute('data-t')];
      node.appendChild(small);
    });
    document.querySelectorAll('[data-t=official]').forEach(function (node) { node.textContent += location.host; });
    $('lang').textContent = lang === 'zh' ? 'English' : '中文';
    $('lang').lang = lang === 'zh' ? 'en' : 'zh-CN';
    var box = $('occupations');
    var chosen = (document.querySelector('input[name=occupation]:checked') || {}).value;
    box.textContent = '';
    window.OCCUPATIONS.forEach(function (row) {
      var label = document.createElement('label');
      var input = document.createElement('input');
      var span = document.createElement('span');
      input.type = 'radio'; input.name = 'occupation'; input.value = row[0]; input.checked = row[0] === chosen;
      span.textContent = row[lang === 'zh' ? 1 : 2];
      label.appendChild(input); label.appendChild(span); box.appendChild(label);
    });
  }

  /* One way to call the API: answers {status, body, retryAfter}; a lost network is status 0. */
  function call(method, path, body, headers) {
    var all = { 'Accept-Language': lang };
    Object.keys(headers || {}).forEach(function (name) { all[name] = headers[name]; });
    if (body !== undefined) { all['Content-Type'] = 'application/json'; }
    return fetch(path, {
      method: method, headers: all, credentials: 'same-origin', cache: 'no-store',
      body: body === undefined ? undefined : JSON.stringify(body)
    }).then(function (answer) {
      var wait = Number(answer.headers.get('Retry-After')) || 0;
      return answer.text().then(function (text) {
        var parsed = null;
        try { parsed = text ? JSON.parse(text) : null; } catch (e) { parsed = null; }
        return { status: answer.status, body: parsed, retryAfter: wait };
      });
    }).catch(function () { return { status: 0, body: null, retryAfter: 0 }; });
  }
  function problem(answer) {
    if (answer.status === 0) { return t('network'); }
    if (answer.status === 429 && answer.retryAfter) { return t('waitS') + answer.retryAfter + t('seconds'); }
    var body = answer.body || {};
    return t('problems')[body.code] || body.detail || body.title || t('network');
  }

  /* The key lives in this history entry: a reload repeats the same scan, a new visit has a new key. */
  function entry() { return history.state && history.state.yizhan ? history.state.yizhan : null; }
  function keep(state) { history.replaceState({ yizhan: state }, ''); }

  function isFresh() {
    var nav = performance.getEntriesByType ? performance.getEntriesByType('navigation')[0] : null;
    var kind = nav ? nav.type : (performance.navigation && performance.navigation.type === 0 ? 'navigate' : 'other');
    return kind === 'navigate' && !entry();
  }
  function whenVisible(act) {
    if (document.visibilityState === 'visible') { act(); return; }
    document.addEventListener('visibilitychange', function seen() {
      if (document.visibilityState !== 'visible') { return; }
      document.removeEventListener('visibilitychange', seen);
      act();
    });
  }

  function start() {
    speak();
    var fresh = isFresh();
    whenVisible(function () {
      /* A code on a screen is over in 45 s; signing in takes longer, so this browser keeps a ticket. */
      var ticket = isScreenCode() && fresh ? call('POST', '/v1/doors/ticket', { token: token }) : Promise.resolve();
      ticket.then(lookIn);
    });
    function lookIn() {
      Promise.all([call('GET', '/v1/doors/' + encodeURIComponent(token)), call('GET', '/v1/me')]).then(function (both) {
        var door = both[0], me = both[1];
        if (door.status === 200) {
          $('station').textContent = door.body.station.name;
          $('door').textContent = door.body.door.name + ' · ' + door.body.station.code;
        } else {
          $('station').textContent = t('noStation');
        }
        show('mine', me.status === 200);
        if (me.status === 0) { ready(''); fail(t('network')); return; }
        if (me.status !== 200) { only('phone-form'); return; }
        var known = entry();
        if (known && known.scan) { follow(known.scan, true); return; }
        if (!fresh) { ready(t('reloaded')); return; }
        if (door.status === 200 && door.body.confirm_tap) { ready(t('tapHere')); return; }
        open();
      });
    }
  }

  function isScreenCode() {
    try { return JSON.parse(atob(token.split('.')[0].replace(/-/g, '+').replace(/_/g, '/'))).typ === 'door+jwt'; } catch (e) { return false; }
  }

  function ready(note) { only('ready'); $('ready-note').textContent = note; }

  function open() {
    var known = entry() || {};
    if (!known.key) { known = { key: hex(16) }; keep(known); }
    only('progress');
    paint('decided', false); paint('claimed', false); paint('opened', false);
    look(t('loading'), '', '');
    $('countdown').textContent = '';
    show('again', false);
    call('POST', '/v1/scans', { token: token }, { 'Idempotency-Key': known.key }).then(function (answer) {
      if (answer.status === 401) { keep({}); only('phone-form'); return; }
      if (answer.status !== 200 && answer.status !== 201) {
        ready('');
        fail(problem(answer));
        /* The same key again after a lost answer; a new one after an answer. */
        if (answer.status !== 0 && answer.status < 500) { keep({ used: true }); }
        return;
      }
      known.scan = answer.body.id;
      keep(known);
      show('mine', true);
      begin(answer.body);
    });
  }

  function tryAgain() { keep({ used: true }); show('inside', false); open(); }

  function follow(id, quietly) {
    call('GET', '/v1/scans/' + id).then(function (answer) {
      if (answer.status === 200) {
        begin(answer.body);
        if (quietly && answer.body.final) { show('again', answer.body.outcome !== 'walk_in'); }
        return;
      }
      keep({ used: true });
      ready(t('reloaded'));
    });
  }

  function final(state) { return state !== 'pending' && state !== 'claimed'; }
  function paint(fact, on) { document.querySelector('[data-fact=' + fact + ']').className = on ? 'on' : ''; }
  function look(headline, detail, mood) {
    $('headline').textContent = headline;
    $('detail').textContent = detail;
    $('progress').className = 'card ' + mood;
  }

  function begin(scan) {
    var mine = ++run;
    if (scan.station) {
      $('station').textContent = scan.station.name;
      $('door').textContent = (scan.door ? scan.door.name + ' · ' : '') + scan.station.code;
    }
    if (scan.outcome === 'refused') { refuse(scan); return; }
    only('progress');
    show('facts', scan.outcome === 'granted');
    if (scan.outcome === 'walk_in') {
      look(t('walkIn'), t('walkInNote'), 'done');
      inside(scan.visit_id);
      return;
    }
    var since = Date.now();
    var left = Math.min(10, Math.max(0, (Date.parse(scan.expires_at) - since) / 1000));
    /* The phone's clock may be wrong: then ten seconds from now, which the server bounds anyway. */
    var until = since + 1000 * (left > 0.5 && left <= 10 ? left : 10);
    state(scan);
    clearInterval(timer);
    timer = setInterval(function () {
      if (mine !== run) { clearInterval(timer); return; }
      tick(until, since);
    }, 250);
    tick(until, since);
    if (!scan.final) { listen(scan.id, scan.state, mine, 0); }
  }

  function tick(until, since) {
    var current = $('progress').getAttribute('data-state');
    if (final(current)) { $('countdown').textContent = ''; clearInterval(timer); return; }
    var left = Math.ceil((until - Date.now()) / 1000);
    $('countdown').textContent = left > 0 ? left : '';
    if (current === 'pending' && Date.now() - since > NOT_ANSWERED_AFTER_S * 1000) { look(t('slow'), t('slowNote'), 'slow'); }
  }

  function listen(id, seen, mine, losses) {
    call('GET', '/v1/scans/' + id + '?wait=20&seen=' + seen).then(function (answer) {
      if (mine !== run) { return; }
      if (answer.status !== 200) {
        if (losses > 8) { look(t('unknown'), t('network'), 'slow'); show('again', true); return; }
        setTimeout(function () { if (mine === run) { listen(id, seen, mine, losses + 1); } }, 600);
        return;
      }
      state(answer.body);
      if (!answer.body.final) { listen(id, answer.body.state, mine, 0); }
    });
  }

  function state(scan) {
    var now = scan.state;
    /* At a door with a contact, unlocked is not yet open: only the contact knows. */
    var unlocked = now === 'executed' && scan.door && scan.door.has_contact;
    var open = now === 'opened' || (now === 'executed' && !unlocked);
    $('progress').setAttribute('data-state', now);
    paint('decided', true);
    paint('claimed', ['claimed', 'executed', 'opened'].indexOf(now) >= 0);
    paint('opened', open);
    show('again', scan.final && !open);
    if (final(now)) { $('countdown').textContent = ''; }
    if (now === 'pending') { look(t('opening'), t('openingNote'), ''); }
    if (now === 'claimed') { look(t('got'), t('gotNote'), ''); }
    if (open) { look(t('done'), t('doneNote'), 'done'); }
    if (unlocked && !scan.final) { look(t('push'), t('pushNote'), 'done'); }
    if (unlocked && scan.final) { look(t('shut'), t('shutNote'), 'slow'); }
    if (now === 'expired') { look(t('expired'), t('expiredNote'), 'slow'); }
    if (now === 'failed') { look(t('failed'), t('failedNote'), 'slow'); }
    if (now === 'refused') { look(t('stopped'), t('stoppedNote'), 'slow'); }
    if (now === 'unknown') { look(t('unknown'), t('unknownNote'), 'slow'); }
    inside(scan.visit_id);
  }

  function inside(id) {
    visitId = id || visitId;
    show('inside', !!visitId);
    if (visitId) { show('leave', true); show('left', false); }
  }

  function refuse(scan) {
    only('refused');
    $('why').textContent = scan.message;
    var list = $('alternatives');
    list.textContent = '';
    scan.alternatives.forEach(function (place) {
      var item = document.createElement('li');
      var name = document.createElement('strong');
      name.textContent = place.name;
      item.appendChild(name);
      item.appendChild(document.createTextNode(
        t('walk') + place.walking_minutes + t('minutes') + ' · ' + place.distance_m + t('metres') + ' · ' + place.address));
      list.appendChild(item);
    });
    passDoor = scan.door ? scan.door.id : null;
    show('show-pass', scan.reason === 'controller_offline' && !!scan.door && scan.door.takes_passes);
    /* What is wrong with the code itself stays wrong: only another code helps. */
    show('retry', !/^(token_|wrong_kind|display_required)/.test(scan.reason));
    show('elsewhere', scan.alternatives.length > 0);
    show('nowhere', scan.alternatives.length === 0 && !!scan.station);
    inside(scan.visit_id);
  }

  function countResend() {
    var left = RESEND_S;
    clearInterval(resendTimer);
    function step() {
      $('resend').disabled = left > 0;
      $('resend').textContent = left > 0 ? left + t('resendIn') : t('resend');
      if (left-- <= 0) { clearInterval(resendTimer); }
    }
    step();
    resendTimer = setInterval(step, 1000);
  }

  function askCode(event) {
    if (event) { event.preventDefault(); }
    var phone = $('phone').value.trim();
    if (!/^[+0-9０-９ ()-]{8,20}$/.test(phone)) { fail(t('badPhone')); $('phone').focus(); return; }
    busy('phone-form', true);
    call('POST', '/v1/auth/otp', { phone: phone, token: token.slice(0, 2048) }).then(function (answer) {
      busy('phone-form', false);
      if (answer.status !== 202) { fail(problem(answer)); return; }
      challenge = answer.body.challenge_id;
      only('code-form');
      $('sent-to').textContent = t('sentTo') + phone;
      $('code').value = '';
      $('code').focus();
      countResend();
    });
  }

  function giveCode(event) {
    event.preventDefault();
    var code = $('code').value.trim();
    if (!/^[0-9]{6}$/.test(code)) { fail(t('badCode')); $('code').focus(); return; }
    var body = { challenge_id: challenge, code: code };
    var chosen = document.querySelector('input[name=occupation]:checked');
    if (chosen) { body.occupation = chosen.value; }
    if ($('consent').checked) { body.consent = { version: CONSENT_VERSION }; }
    busy('code-form', true);
    call('POST', '/v1/auth/otp/verify', body).then(function (answer) {
      busy('code-form', false);
      if (answer.status !== 200) { fail(problem(answer)); $('code').focus(); return; }
      keep({});
      open();
    });
  }
  function busy(form, on) { $(form).querySelector('.main').disabled = on; }

  function leave() {
    $('leave').disabled = true;
    call('POST', '/v1/visits/' + visitId + '/leave').then(function (answer) {
      $('leave').disabled = false;
      if (answer.status !== 200) { fail(problem(answer)); return; }
      visitId = null;
      show('leave', false);
      show('left', true);
    });
  }

  function showPass() {
    if (window.yizhanPass) { window.yizhanPass(call, t, $, problem, passDoor); return; }
    var script = document.createElement('script');
    script.src = '/pages/pass.js';
    script.onload = showPass;
    document.body.appendChild(script);
  }

  function loadMine() {
    if (window.yizhanMe) { window.yizhanMe(call, t, $); return; }
    var script = document.createElement('script');
    script.src = '/pages/me.js';
    script.onload = function () { window.yizhanMe(call, t, $); };
    document.body.appendChild(script);
  }

  $('phone-form').addEventListener('submit', askCode);
  $('code-form').addEventListener('submit', giveCode);
  $('resend').addEventListener('click', function () { only('phone-form'); askCode(); });
  $('other-phone').addEventListener('click', function () { only('phone-form'); $('phone').focus(); });
  $('open').addEventListener('click', open);
  $('again').addEventListener('click', tryAgain);
  $('retry').addEventListener('click', tryAgain);
  $('leave').addEventListener('click', leave);
  $('show-pass').addEventListener('click', showPass);
  $('mine').addEventListener('click', loadMine);
  $('lang').addEventListener('click', function () {
    lang = lang === 'zh' ? 'en' : 'zh';
    store('yizhan.lang', lang);
    speak();
    var known = entry();
    if (known && known.scan) { follow(known.scan, true); }
  });
  /* Back from the browser's memory: nothing opens by itself. */
  window.addEventListener('pageshow', function (event) {
    if (event.persisted) { run += 1; var known = entry(); if (known && known.scan) { follow(known.scan, true); } }
  });
  start();
}());
