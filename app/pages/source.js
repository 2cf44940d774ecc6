/* Where a figure comes from: its formula, what was put in, the counts, how complete they are, the rows. */
'use strict';
window.yizhanSource = function (box, figures, t, call, problem, acts) {
  var PAGE = 50;
  var run = 0;

  function made(name, text, kind) {
    var node = document.createElement(name);
    if (text !== undefined) { node.textContent = text; }
    if (kind) { node.className = kind; }
    return node;
  }
  function part(title) {
    var section = made('section');
    section.appendChild(made('h3', title));
    box.appendChild(section);
    return section;
  }
  function withValues(expression, fields, row) {
    return expression.replace(/[a-z][a-z_0-9]*/g, function (name) {
      var field = fields.filter(function (one) { return one.name === name; })[0];
      if (!field) { return name; }
      var unit = figures.measure(field);
      /* Of a ranking's sides the word stands before them already. */
      var isSide = name === 'numerator' || name === 'denominator';
      return (isSide ? '' : figures.title(field) + ' ') + figures.cell(field, row).text + (unit ? ' ' + unit : '');
    });
  }
  function counterName(name) {
    var two = name.split('.');
    if (two[0] === 'refused' && two[1]) { return figures.word('outcome', 'refused') + ' · ' + figures.word('reason', two[1]); }
    if (two[0] === 'commands' && two[1]) { return figures.word('state', two[1]); }
    if (two[1]) { return figures.word('kind', two[0]) + ' · ' + figures.word('used', two[1]); }
    return figures.word('counter', name) + (/_histogram$/.test(name) ? t('histogramIs') : '');
  }
  function counterSum(counter) {
    if (/_ms$/.test(counter.name)) { return figures.grouped(counter.sum / 3600000, 3) + ' ' + figures.unit({ unit: 'hours' }); }
    if (/\.quantity$/.test(counter.name)) { return figures.measured(counter.sum / 1000, 3); }
    return figures.grouped(counter.sum, 0);
  }
  function isTime(name) { return /_ms$/.test(name) && name !== 'decide_ms'; }
  /* Of which days a figure is that stands beside the period before. */
  function which(field) { return { _over: 'daysOver', _before: 'before', _change: 'bothPeriods' }[field.ending]; }
  function line(heads, name, texts) {
    var tr = made('tr'), first = made('th', name);
    first.scope = heads === 'th' ? 'col' : 'row';
    tr.appendChild(first);
    texts.forEach(function (text) {
      var cell = made(heads, text, 'num');
      if (heads === 'th') { cell.scope = 'col'; }
      tr.appendChild(cell);
    });
    return tr;
  }
  /* What was counted on the days that are compared, class by class: of one period. */
  function onDays(some, named) {
    var table = made('table'), thead = made('thead'), tbody = made('tbody'), scroller = made('div', undefined, 'scroll days'), names = [];
    some.forEach(function (one) { one.counters.forEach(function (each) { if (names.indexOf(each.name) < 0) { names.push(each.name); } }); });
    thead.appendChild(line('th', t('dayClass'), some.map(function (one) { return figures.word('day_class', one.day_class); })));
    tbody.appendChild(line('td', t('daysCompared'), some.map(function (one) { return figures.grouped(one.days, 0); })));
    names.forEach(function (name) {
      tbody.appendChild(line('td', counterName(name), some.map(function (one) {
        /* Of facilities, what is nought is not among them. */
        return counterSum(one.counters.filter(function (each) { return each.name === name; })[0] || { name: name, sum: 0 });
      })));
    });
    [made('caption', named), thead, tbody].forEach(function (one) { table.appendChild(one); });
    scroller.tabIndex = 0;
    scroller.appendChild(table);
    return scroller;
  }
  function rowCell(name, value) {
    if (value === null || value === undefined) { return figures.DASH; }
    if (/_(at|until)$/.test(name)) { return figures.clock(value); }
    if (name === 'demand') { return value.slice(-8); }
    if (isTime(name)) { return figures.grouped(value / 3600000, 2); }
    if (typeof value === 'boolean') { return value ? t('yes') : t('no'); }
    if (name === 'would_have_been_refused') { name = 'reason'; }
    if (typeof value === 'string' && window.VALUES[name]) { return figures.word(name, value); }
    return String(value);
  }

  function open(asked) {
    var mine = ++run;
    var field = asked.field, row = asked.row;
    box.textContent = '';
    var top = made('div', undefined, 'top');
    var heading = made('h2', figures.title(field) + (field.ending ? ' · ' + figures.unit(field) : ''));
    heading.id = 'source-title';
    var close = made('button', t('close'), 'tool');
    close.type = 'button';
    close.addEventListener('click', acts.close);
    top.appendChild(heading);
    top.appendChild(close);
    box.appendChild(made('p', t('source'), 'kicker'));
    box.appendChild(top);
    box.appendChild(made('p', [asked.name, asked.period].filter(Boolean).join(' · '), 'sub'));
    var found = figures.cell(field, row);
    var value = made('p', found.text, 'value');
    if (!found.mark && figures.measure(field)) { value.appendChild(made('small', ' ' + figures.measure(field))); }
    box.appendChild(value);
    if (found.mark === 'none') { box.appendChild(made('p', t('noValue'), 'sub')); }
    if (typeof row[field.name] === 'number') { box.appendChild(made('p', figures.fill(t('exact'), { value: figures.exact(field, row[field.name]) }), 'sub')); }
    if (field.unit === 'counts' && !found.mark) { value.textContent = figures.reasons(row[field.name], 99); value.className = 'value long'; }

    var formula = part(t('formula'));
    formula.appendChild(made('p', figures.readable(asked.formula, asked.fields), 'formula'));
    var sides = field.numerator ? [['of', field.numerator], ['per', field.denominator]] : field.denominator ? [['ofSoMany', field.denominator]] : field.ending === '_change' ? [['daysOver', field.of + '_over'], ['before', field.of + '_before']] : [];
    if (sides.length) {
      var list = made('dl');
      sides.forEach(function (side) {
        list.appendChild(made('dt', t(side[0])));
        list.appendChild(made('dd', withValues(side[1], asked.fields, row)));
      });
      formula.appendChild(list);
    }
    var complete = part(t('completeness'));
    if (field.ending) { complete.appendChild(made('p', figures.comparedDays(row))); }
    var known = field.ending === '_before' ? row.before_known_share : row.known_share;
    if (typeof known === 'number') { complete.appendChild(made('p', figures.fill(t('knownIs'), { share: figures.percent(known) }))); }
    if (field.ending === '_before' && typeof row.before_reported_share === 'number') { complete.appendChild(made('p', figures.fill(t('heardIs'), { share: figures.percent(row.before_reported_share) }))); }
    if (asked.elsewhere) {
      var away = part(t('rowsElsewhere'));
      var link = made('a', figures.fill(t('openReport'), { name: asked.elsewhere.name }));
      link.href = asked.elsewhere.href;
      away.appendChild(link);
    }
    show();
    if (!asked.query) { return; }
    var state = made('p', t('loadingSource'), 'sub');
    state.setAttribute('role', 'status');
    box.appendChild(state);
    ask();

    function path(cursor) { return '/v1/admin/reports/' + asked.report + '/source?' + asked.query + '&limit=' + PAGE + (cursor ? '&cursor=' + encodeURIComponent(cursor) : ''); }
    function ask() {
      call('GET', path('')).then(function (answer) {
        if (mine !== run) { return; }
        if (answer.status !== 200) { state.className = 'error'; state.textContent = problem(answer); box.appendChild(state); return; }
        state.remove();
        told(answer.body);
      });
    }
    function told(source) {
      var days = source.completeness;
      complete.appendChild(made('p', figures.fill(t('daysAre'), { which: t(field.ending === '_before' || field.ending === '_change' ? which(field) : 'chosenDays'), asked: days.days_asked, over: days.days_over, begun: days.days_begun, come: days.days_to_come }), 'sub'));
      if (!asked.isPrivate) {
        var counts = part(t('counts'));
        var now = source.value;
        if (typeof now === 'number' && now !== row[field.name]) {
          counts.appendChild(made('p', figures.fill(t('differs'), { now: figures.said(field, now, row) }), 'note'));
        }
        if (field.ending) {
          [['before', true], ['now', false]].forEach(function (side) {
            var some = source.on_days.filter(function (one) { return one.is_before === side[1]; });
            if (!some.length) { return; }
            var named = figures.plain(t(side[1] ? 'before' : 'thisPeriod')) + ' · ' + asked.periods[side[0]];
            counts.appendChild(made('p', named, 'sub'));
            counts.appendChild(onDays(some, named));
          });
          if (!source.on_days.length) { counts.appendChild(made('p', t('noneCompared'), 'sub')); }
        } else if (source.counters.length) {
          var table = made('table');
          var body = made('tbody');
          source.counters.forEach(function (counter) {
            var tr = made('tr'), th = made('th', counterName(counter.name));
            th.scope = 'row';
            tr.appendChild(th);
            tr.appendChild(made('td', counterSum(counter), 'num'));
            body.appendChild(tr);
          });
          table.appendChild(body);
          counts.appendChild(table);
        } else { counts.appendChild(made('p', t('noCounters'), 'sub')); }
        var sums = source.rollups;
        counts.appendChild(made('p', sums.count && sums.rolled_from ? figures.fill(t('rollups'), { n: figures.grouped(sums.count, 0), first: figures.time(sums.rolled_from), last: figures.time(sums.rolled_to) }) : source.counters.length || field.ending ? t('noRollups') : t('rollupsNone'), 'sub'));
      }
      var rows = part(t('rows') + (field.ending ? ' · ' + t(which(field)) : ''));
      if (asked.isPrivate) { rows.appendChild(made('p', t('rowsPrivate'))); return; }
      if (!source.row_kind) { rows.appendChild(made('p', t('rowsNone'))); return; }
      if (source.rows === null) {
        rows.appendChild(made('p', t(source.station === null ? 'rowsStation' : 'rowsShort')));
        if (source.station === null && asked.byStation) {
          var link = made('a', t('byStation'));
          link.href = asked.byStation;
          rows.appendChild(link);
        }
        return;
      }
      rows.appendChild(made('p', t('rowsPrivacy'), 'sub'));
      if (!source.rows.length && !source.next) { rows.appendChild(made('p', t('rowsEmpty'))); return; }
      var names = Object.keys(source.rows[0]).filter(function (name) { return name !== 'id' && name !== 'facility_id'; }).concat(['id']);
      var grid = made('table'), head = made('tr'), scroller = made('div', undefined, 'scroll');
      names.forEach(function (name) { var th = made('th', name === 'id' ? 'id' : figures.word('row', name)); th.scope = 'col'; head.appendChild(th); });
      var thead = made('thead'), tbody = made('tbody');
      thead.appendChild(head);
      grid.appendChild(thead);
      grid.appendChild(tbody);
      scroller.tabIndex = 0;
      scroller.appendChild(grid);
      rows.appendChild(scroller);
      var listed = made('p', '', 'sub'), next = made('button', '', 'second');
      listed.setAttribute('role', 'status');
      next.type = 'button';
      rows.appendChild(listed);
      rows.appendChild(next);
      add(source);
      function add(page) {
        page.rows.forEach(function (one) {
          var tr = made('tr');
          names.forEach(function (name) {
            var td = made('td', name === 'id' ? one.id.slice(-8) : rowCell(name, one[name]), typeof one[name] === 'number' ? 'num' : '');
            if (name === 'id') { td.title = one.id; td.className = 'id'; }
            tr.appendChild(td);
          });
          tbody.appendChild(tr);
        });
        listed.textContent = figures.fill(t('page'), { n: figures.grouped(tbody.children.length, 0) });
        next.hidden = !page.next;
        next.textContent = figures.fill(t('moreRows'), { n: PAGE });
        next.disabled = false;
        next.onclick = function () {
          next.disabled = true;
          call('GET', path(page.next)).then(function (answer) {
            if (mine !== run) { return; }
            if (answer.status === 200) { add(answer.body); } else { next.disabled = false; listed.textContent = problem(answer); }
          });
        };
      }
    }
  }
  function show() {
    box.hidden = false;
    document.body.classList.add('beside');
    box.scrollTop = 0;
    box.focus();
  }
  function close() {
    run += 1;
    box.hidden = true;
    box.textContent = '';
    document.body.classList.remove('beside');
  }
  box.addEventListener('keydown', function (event) { if (event.key === 'Escape') { event.preventDefault(); acts.close(); } });
  return { open: open, close: close, isOpen: function () { return !box.hidden; } };
};
