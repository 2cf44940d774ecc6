/* Finding a place: a unit or a station by a part of its name or code, in one box, by keyboard or touch. */
'use strict';
window.yizhanPlaces = function (input, box, figures, t, call, acts) {
  var WAIT_TYPING_MS = 250;
  var AT_ONCE = 12;
  /* Before anything is typed, the units are offered as far as they go. */
  var UNITS = 60;
  var known = { station: {}, unit: {} };
  var run = 0, timer = null, offered = [], at = -1, takesFirst = false;

  function made(name, text, kind) {
    var node = document.createElement(name);
    if (text !== undefined) { node.textContent = text; }
    if (kind) { node.className = kind; }
    return node;
  }
  function find(words) {
    var mine = ++run;
    var query = words ? '&q=' + encodeURIComponent(words) : '';
    var units = call('GET', '/v1/admin/units?limit=' + (words ? AT_ONCE : UNITS) + query);
    var stations = call('GET', '/v1/admin/stations?limit=' + AT_ONCE + query);
    Promise.all([units, stations]).then(function (both) {
      if (mine !== run || document.activeElement !== input) { return; }
      var found = words ? [] : [{ text: acts.everything(), unit: '', station: '' }];
      /* Who keeps one station may not read units. */
      var own = both[0].status === 200 ? both[0].body : [];
      own.sort(function (a, b) { return a.path.localeCompare(b.path, 'en', { numeric: true }); }).forEach(function (unit) {
        if (!words && acts.isTop(unit)) { return; }
        known.unit[unit.id] = unit;
        found.push({ kind: t('unitIs'), text: unit.name, more: figures.word('unit_kind', unit.kind) + gone(unit), unit: unit.id, station: '' });
      });
      (both[1].status === 200 ? both[1].body : []).forEach(function (station) {
        known.station[station.code] = station;
        found.push({ kind: t('stationIs'), text: station.name, more: station.code + gone(station), unit: '', station: station.code });
      });
      var isMore = both.some(function (answer) { return answer.headers && answer.headers.get('Link'); });
      offer(found, found.length ? isMore ? t('morePlaces') : '' : t(both[1].status === 0 ? 'networkNow' : 'noPlace'));
      if (takesFirst && found.length) { take(0); }
    });
  }
  function gone(place) { return place.retired_at ? ' · ' + t('retired') : ''; }

  /* What else is to say stands below what was found, or instead of it. */
  function offer(found, otherwise) {
    box.textContent = '';
    offered = found;
    at = -1;
    found.forEach(function (one, index) {
      var item = made('li');
      item.id = 'place-' + index;
      item.setAttribute('role', 'option');
      item.setAttribute('aria-selected', 'false');
      if (one.kind) { item.appendChild(made('span', one.kind, 'kind')); }
      item.appendChild(made('span', one.text));
      if (one.more) { item.appendChild(made('small', one.more)); }
      item.addEventListener('mousedown', function (event) { event.preventDefault(); take(index); });
      box.appendChild(item);
    });
    if (otherwise) {
      var more = made('li', otherwise, 'sub');
      more.setAttribute('role', 'option');
      more.setAttribute('aria-disabled', 'true');
      box.appendChild(more);
    }
    box.hidden = false;
    input.setAttribute('aria-expanded', 'true');
    input.removeAttribute('aria-activedescendant');
  }
  function shut() {
    run += 1;
    takesFirst = false;
    clearTimeout(timer);
    box.hidden = true;
    offered = [];
    input.setAttribute('aria-expanded', 'false');
    input.removeAttribute('aria-activedescendant');
  }
  function take(index) {
    var one = offered[index];
    shut();
    input.blur();
    acts.take({ unit: one.unit, station: one.station });
  }
  function point(step) {
    if (!offered.length) { return; }
    var items = box.children;
    if (at >= 0) { items[at].setAttribute('aria-selected', 'false'); }
    at = at < 0 && step < 0 ? offered.length - 1 : (at + step + offered.length) % offered.length;
    items[at].setAttribute('aria-selected', 'true');
    items[at].scrollIntoView({ block: 'nearest' });
    input.setAttribute('aria-activedescendant', 'place-' + at);
  }

  input.addEventListener('focus', function () { input.select(); find(''); });
  input.addEventListener('input', function () {
    /* What was offered is for other words. */
    offered = [];
    clearTimeout(timer);
    timer = setTimeout(function () { find(input.value.trim()); }, WAIT_TYPING_MS);
  });
  input.addEventListener('blur', function () { shut(); input.value = acts.name(); });
  input.addEventListener('keydown', function (event) {
    if (event.isComposing) { return; }
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') { event.preventDefault(); point(event.key === 'ArrowDown' ? 1 : -1); }
    if (event.key === 'Enter') {
      event.preventDefault();
      if (offered.length) { take(Math.max(0, at)); return; }
      takesFirst = true;
      clearTimeout(timer);
      find(input.value.trim());
    }
    if (event.key === 'Escape') { shut(); input.value = acts.name(); input.select(); }
  });

  return {
    known: known,
    forget: function () { known.station = {}; known.unit = {}; },
    /* The address names a station by its code, which people know; the API by its id. Gives the station, null, or an answer that failed. */
    station: function (code) {
      if (known.station[code]) { return Promise.resolve(known.station[code]); }
      return call('GET', '/v1/admin/stations?limit=200&q=' + encodeURIComponent(code.slice(0, 50))).then(function (answer) {
        if (answer.status !== 200) { return answer; }
        var found = answer.body.filter(function (one) { return one.code === code; })[0];
        if (found) { known.station[code] = found; }
        return found || null;
      });
    },
    unit: function (id) {
      if (known.unit[id]) { return Promise.resolve(known.unit[id]); }
      return call('GET', '/v1/admin/units/' + encodeURIComponent(id)).then(function (answer) {
        if (answer.status !== 200) { return answer; }
        known.unit[id] = answer.body;
        return answer.body;
      });
    }
  };
};
