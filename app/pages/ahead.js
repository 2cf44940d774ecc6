/* How a station is now, or why nobody knows; and the next 24 hours at a station or in a unit: what is usual on such days, and how far off that was lately. */
'use strict';
window.yizhanAhead = function (box, figures, t, call, problem) {
  var run = 0;
  function made(name, text, kind) {
    var node = document.createElement(name);
    if (text !== undefined) { node.textContent = text; }
    if (kind) { node.className = kind; }
    return node;
  }
  function between(hour) {
    return hour.low === null ? '' : figures.measured(hour.low, 1) + '–' + figures.measured(hour.high, 1);
  }
  /* Why nothing is to be expected, each reason once. */
  function reasons(hours) {
    var found = [];
    hours.forEach(function (hour) { if (hour.unexpected_because && found.indexOf(hour.unexpected_because) < 0) { found.push(hour.unexpected_because); } });
    return found;
  }
  function persons(value) { return figures.fill(t('nowPersons'), { n: value }); }
  /* A level only where it is known; what was counted is a number less than all, else. */
  function tellNow(node, body) {
    var usual = body.usual, counted = persons(figures.grouped(body.inside, 0));
    var level = !body.is_known ? t('nowUnknown') : body.level === null ? t('nowNoPlaces') : figures.word('level', body.level);
    node.textContent = '';
    node.appendChild(made('span', figures.fill(t('nowAt'), { time: figures.time(body.as_of).slice(11) }), 'sub'));
    node.appendChild(made('strong', level, body.is_known && body.level !== null ? 'level' : 'level none'));
    if (!body.is_known) { node.appendChild(made('p', figures.word('unknown_because', body.unknown_because), 'sub')); }
    node.appendChild(made('p', figures.fill(t(body.is_known ? 'nowInside' : 'nowCounted'), { persons: counted, capacity: figures.grouped(body.capacity, 0) }), 'sub'));
    if (!usual) { node.appendChild(made('p', t('nowUsualNone'), 'sub')); return; }
    var behind = { day: figures.word('day_class', usual.day_class), quarter: usual.quarter, days: usual.days === null ? figures.DASH : figures.grouped(usual.days, 0), made: figures.time(usual.made_at), median: usual.median === null ? '' : persons(figures.measured(usual.median, 1)) };
    var compared = body.busy_vs_usual === null ? '' : ' ' + figures.fill(t('nowTimes'), { times: figures.measured(body.busy_vs_usual, 1) });
    node.appendChild(made('p', figures.fill(t(usual.median === null ? 'nowUsualFew' : 'nowUsual'), behind) + compared, 'sub'));
  }
  function tell(box, body) {
    var drawing = made('div'), skill = body.skill;
    box.textContent = '';
    reasons(body.hours).forEach(function (reason) { box.appendChild(made('p', figures.word('unexpected_because', reason), 'note')); });
    if (body.hours.every(function (hour) { return hour.persons === null; })) { return; }
    box.appendChild(drawing);
    window.yizhanChart(drawing, body.hours.map(function (hour) {
      var name = figures.time(hour.from);
      return { key: hour.from, value: hour.persons, partial: false, name: name + ' ' + figures.word('day_class', hour.day_class), short: name.slice(11, 13), text: hour.persons === null ? figures.DASH : figures.measured(hour.persons, 1) + ' (' + between(hour) + ')' };
    }), function (tick) { return figures.grouped(tick, tick % 1 ? 1 : 0); }, t('ahead'));
    box.appendChild(made('p', skill.mae === null ? t('noSkill') : figures.fill(t('skill'), { days: skill.days, mae: figures.measured(skill.mae, 2), week: skill.mae_last_week === null ? figures.DASH : figures.measured(skill.mae_last_week, 2) }), 'sub'));
    var table = made('table'), head = made('tr'), thead = made('thead'), tbody = made('tbody'), scroller = made('div', undefined, 'scroll');
    var isUnit = body.hours[0].stations_share !== null;
    ['aheadHour', 'aheadPersons', 'aheadRange', 'aheadDays'].concat(isUnit ? ['aheadStations'] : []).forEach(function (key, index) { var th = made('th', t(key), index ? 'num' : ''); th.scope = 'col'; head.appendChild(th); });
    body.hours.forEach(function (hour) {
      var tr = made('tr'), th = made('th', figures.time(hour.from).slice(5) + ' · ' + figures.word('day_class', hour.day_class));
      th.scope = 'row';
      tr.appendChild(th);
      [hour.persons === null ? figures.DASH : figures.measured(hour.persons, 1), between(hour) || figures.DASH, figures.grouped(hour.values, 0)].concat(isUnit ? [figures.percent(hour.stations_share)] : []).forEach(function (text) { tr.appendChild(made('td', text, 'num')); });
      tbody.appendChild(tr);
    });
    thead.appendChild(head);
    table.appendChild(thead);
    table.appendChild(tbody);
    scroller.appendChild(table);
    scroller.tabIndex = 0;
    box.appendChild(scroller);
  }
  return {
    /* A branch has no level: its stations have. */
    show: function (place) {
      var mine = ++run;
      box.textContent = '';
      function part(path, kind, told) {
        var node = made('div', undefined, kind);
        node.appendChild(made('p', t('receiving'), 'sub'));
        box.appendChild(node);
        call('GET', path).then(function (answer) {
          if (mine !== run) { return; }
          if (answer.status === 200) { told(node, answer.body); return; }
          node.textContent = '';
          node.appendChild(made('p', problem(answer), 'error'));
        });
      }
      if (place.isStation) { part(place.path + '/occupancy', 'now', tellNow); }
      part(place.path + '/forecast', '', tell);
    }
  };
};
