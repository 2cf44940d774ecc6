/* A worker's own data: consent, visits, export, erasure. Loaded when asked for. */
'use strict';
window.yizhanMe = function (call, t, $) {
  var box = $('me');
  if (!box.hidden) { box.hidden = true; return; }
  function button(text, act) {
    var made = document.createElement('button');
    made.type = 'button'; made.className = 'second'; made.textContent = text;
    made.addEventListener('click', function () { act(made); });
    box.appendChild(made);
    return made;
  }
  function again() { box.hidden = true; window.yizhanMe(call, t, $); }
  Promise.all([call('GET', '/v1/me'), call('GET', '/v1/me/visits?limit=5')]).then(function (both) {
    box.textContent = '';
    if (both[0].status !== 200) { location.reload(); return; }
    var me = both[0].body;
    var head = document.createElement('h2');
    head.textContent = me.phone;
    box.appendChild(head);
    var title = document.createElement('p');
    title.textContent = t('visits');
    box.appendChild(title);
    var list = document.createElement('ul');
    (both[1].body || []).forEach(function (visit) {
      var item = document.createElement('li');
      item.textContent = new Date(visit.started_at).toLocaleString() + ' ' + visit.station.name;
      list.appendChild(item);
    });
    if (!list.firstChild) { list.appendChild(document.createElement('li')).textContent = t('none'); }
    box.appendChild(list);
    if (me.consent) {
      button(t('withdraw'), function () { call('PATCH', '/v1/me', { consent: null }).then(again); });
    } else {
      button(t('give'), function () { call('PATCH', '/v1/me', { consent: { version: '2026-12' } }).then(again); });
    }
    var link = document.createElement('a');
    link.href = '/v1/me/export'; link.className = 'second'; link.textContent = t('exportMe');
    box.appendChild(link);
    button(t('logout'), function () { call('POST', '/v1/auth/logout').then(function () { location.reload(); }); });
    var sure = false;
    button(t('erase'), function (made) {
      if (!sure) { sure = true; made.textContent = t('eraseSure'); return; }
      call('DELETE', '/v1/me').then(function () { location.reload(); });
    });
    button(t('close'), function () { box.hidden = true; });
    box.hidden = false;
  });
};
