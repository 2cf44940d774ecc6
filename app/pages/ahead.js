/* The next 24 hours at a station or in a unit: what is usual on such days, and how far off that was lately. */
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
  function tell(body) {
    var drawing = made('div'), skill = body.skill;
    box.textContent = '';
    if (body.hours.every(function (hour) { return hour.persons === null; })) { box.appendChild(made('p', t('aheadNothing'), 'note')); return; }
    box.appendChild(drawing);
    window.yizhanChart(drawing, body.hours.map(function (hour) {
      var name = figures.time(hour.from);
      return { key: hour.from, value: hour.persons, partial: false, name: name + ' ' + figures.word('day_class', hour.day_class), short: name.slice(11, 13), text: hour.persons === null ? figures.DASH : figures.measured(hour.persons, 1) + ' (' + between(hour) + ')' };
    }), function (tick) { return figures.grouped(tick, tick % 1 ? 1 : 0); }, t('ahead'));
    box.appendChild(made('p', skill.mae === null ? t('noSkill') : figures.fill(t('skill'), { days: skill.days, mae: figures.measured(skill.mae, 2), week: skill.mae_last_week === null ? figures.DASH : figures.measured(skill.mae_last_week, 2) }), 'sub'));
    var table = made('table'), head = made('tr'), thead = made('thead'), tbody = made('tbody'), scroller = made('div', undefined, 'scroll');
    ['aheadHour', 'aheadPersons', 'aheadRange', 'aheadDays'].forEach(function (key, index) { var th = made('th', t(key), index ? 'num' : ''); th.scope = 'col'; head.appendChild(th); });
    body.hours.forEach(function (hour) {
      var tr = made('tr'), th = made('th', figures.time(hour.from).slice(5) + ' · ' + figures.word('day_class', hour.day_class));
      th.scope = 'row';
      tr.appendChild(th);
      [hour.persons === null ? figures.DASH : figures.measured(hour.persons, 1), between(hour) || figures.DASH, figures.grouped(hour.values, 0)].forEach(function (text) { tr.appendChild(made('td', text, 'num')); });
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
    show: function (path) {
      var mine = ++run;
      box.textContent = '';
      box.appendChild(made('p', t('receiving'), 'sub'));
      call('GET', path).then(function (answer) {
        if (mine !== run) { return; }
        if (answer.status === 200) { tell(answer.body); return; }
        box.textContent = '';
        box.appendChild(made('p', problem(answer), 'error'));
      });
    }
  };
};
