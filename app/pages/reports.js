/* The administrator's page of reports: sign in, choose, read, ask where a figure comes from, take it away. */
'use strict';
(function () {
  var MOST_BYTES = 32 * 1048576;
  var LONGEST_DAYS = 366;
  /* Known for less of its time, or told of by its controller, a bar is pale. */
  var SURE = 0.95;
  /* What is shown of each report at first; all columns are one click away. */
  var MAIN = {
    visits: ['visits', 'persons', 'unique_workers', 'out_of_hours_visits', 'offhours_share', 'night_uplift', 'free_mode_coverage', 'refused', 'unmet_demand', 'dwell_median_s', 'imputed_exit_share', 'reported_share', 'known_share'],
    access: ['decided', 'granted', 'walk_in', 'refused', 'by_reason', 'grant_rate', 'unmet_demand', 'open_success_rate', 'failed', 'expired', 'unknown', 'proven_open_rate', 'decide_p95_ms', 'pickup_p50_ms', 'pickup_p95_ms', 'pulse_p95_ms', 'alone_opened', 'reported_share', 'known_share'],
    occupancy: ['capacity', 'avg_occupancy', 'avg_when_used', 'peak_occupancy', 'peak_at', 'max_observed', 'seat_utilization', 'time_utilization', 'crowded_minutes', 'person_hours', 'free_mode_coverage', 'reported_share', 'known_share'],
    facilities: ['units', 'uses', 'quantity', 'in_use_hours', 'uses_per_visit', 'availability', 'out_of_order_hours', 'unknown_share', 'repairs', 'repair_mean_min', 'repair_median_min', 'open_faults_over_72h', 'reported_share', 'known_share'],
    promise: ['promised_hours', 'usable_hours', 'unknown_hours', 'promise_rate', 'unknown_share', 'controller_uptime', 'outages', 'mttr_min', 'known_share'],
    occupations: ['visits', 'persons', 'unique_workers', 'visits_share', 'occupation_share', 'known_share'],
    ranking: ['peer_group', 'capacity', 'value', 'numerator', 'denominator', 'peers', 'percentile', 'rank', 'known_share'],
    controllers: ['online', 'seen_at', 'firmware', 'commands', 'executed', 'refused', 'failed', 'expired', 'unknown', 'pickup_p50_ms', 'pickup_p95_ms', 'known_share']
  };
  /* What names a row, and stands in its head. */
  var NAMES = ['station', 'unit', 'name', 'is_own', 'operating_model', 'day', 'hour', 'weekday', 'day_class', 'kind', 'occupation', 'suppressed', 'beyond_retention', 'figure'];
  /* By these a row is asked for again: where its figures come from. */
  var ROW_NAMES = ['station', 'unit', 'operating_model', 'day', 'hour', 'weekday', 'day_class', 'kind'];
  var NO_FIGURES = ['text', 'id', 'date', 'truth'];
  var PLACES = ['station', 'unit', 'branch', 'operating_model', 'all'];
  var KEPT = ['report', 'station', 'unit', 'from', 'to', 'by', 'bucket', 'compare', 'figure', 'sort', 'columns', 'source', 'row'];

  var lang = stored('yizhan.lang') || (/^zh/i.test(navigator.language || 'zh') ? 'zh' : 'en');
  var figures = window.yizhanFigures(t, inLang);
  var client = window.yizhanClient(t, inLang, figures, { most: MOST_BYTES, signedOut: function () { signedOut(stored('yizhan.admin') ? t('again401') : ''); } });
  var call = client.call, problem = client.problem;
  var catalogue = null;
  var chosen = {};
  var told = null;
  var placed = {};
  var seen = null;
  var asking = null;
  var cameFrom = null;
  var drawTimer = null;
  var supposed = null;

  function inLang() { return lang; }
  function $(id) { return document.getElementById(id); }
  function t(key) { var words = window.REPORT_WORDS[lang][key]; return words === undefined ? window.WORDS[lang][key] : words; }
  function stored(key) { try { return localStorage.getItem(key); } catch (e) { return null; } }
  function store(key, value) { try { if (value === null) { localStorage.removeItem(key); } else { localStorage.setItem(key, value); } } catch (e) { /* Private mode: the page works without. */ } }
  function show(id, on) { $(id).hidden = !on; }
  function only(id) { ['wait', 'login', 'app'].forEach(function (other) { show(other, other === id); }); show('sign-out', id === 'app'); }
  function made(name, text, kind) {
    var node = document.createElement(name);
    if (text !== undefined) { node.textContent = text; }
    if (kind) { node.className = kind; }
    return node;
  }
  function option(value, text) { var node = made('option', text); node.value = value; return node; }

  /* A sentence, and perhaps the button that it speaks of. */
  function fail(text, word, act) {
    var box = $('error');
    box.textContent = text;
    if (text && word) {
      var button = made('button', t(word), 'tool');
      button.type = 'button';
      button.addEventListener('click', act);
      box.appendChild(button);
    }
    show('error', !!text);
  }
  function failed(answer) {
    /* What a browser cannot hold is still written to a file. */
    var isLong = answer.body && answer.body.code === 'period_invalid' && /rows/.test(answer.body.detail);
    if (isLong || answer.status === -1) { fail(isLong ? t('tooMany') : problem(answer), 'csv', function () { download('csv'); }); return; }
    if (answer.status === 0 || answer.status >= 500) { fail(problem(answer), 'retry', load); return; }
    fail(problem(answer));
  }

  function speak() {
    document.documentElement.lang = lang === 'zh' ? 'zh-CN' : 'en';
    document.querySelectorAll('[data-t]').forEach(function (node) { node.textContent = t(node.getAttribute('data-t')); });
    document.querySelectorAll('[data-label]').forEach(function (node) { node.setAttribute('aria-label', t(node.getAttribute('data-label'))); });
    $('lang').textContent = lang === 'zh' ? 'English' : '中文';
    $('lang').lang = lang === 'zh' ? 'en' : 'zh-CN';
    $('scope').placeholder = t('scopeHint');
    $('filter').placeholder = t('filter');
    $('filter').setAttribute('aria-label', t('filter'));
    $('chart-series').setAttribute('aria-label', t('chartAll'));
  }

  /* --- Signing in and out: the session is a cookie that no script can read. --- */

  function signedOut(note) {
    if (asking) { asking.abort(); }
    panel.close();
    $('supposed').open = false;
    if (supposed) { supposed.forget(); }
    only('login');
    $('login-note').textContent = note || '';
    $('who').textContent = '';
    $('password').value = '';
    $('totp').value = '';
    show('login-error', false);
    told = null;
    catalogue = null;
    $('table').textContent = '';
    $('drawing').textContent = '';
    if (note) { $('username').value = who().username || ''; }
    $(note ? 'password' : 'username').focus();
  }
  function signIn(event) {
    event.preventDefault();
    var body = { username: $('username').value.trim(), password: $('password').value };
    var totp = $('totp').value.trim();
    function refuse(text) { $('login-error').textContent = text; show('login-error', true); }
    if (!body.username || !body.password) { refuse(t('badLogin')); $(body.username ? 'password' : 'username').focus(); return; }
    if (totp && !/^[0-9]{6}$/.test(totp)) { refuse(t('badTotp')); $('totp').focus(); return; }
    if (totp) { body.totp = totp; }
    var button = $('login').querySelector('.main');
    button.disabled = true;
    call('POST', '/v1/admin/login', body).then(function (answer) {
      button.disabled = false;
      if (answer.status !== 200) { refuse(problem(answer)); $('password').focus(); return; }
      store('yizhan.admin', JSON.stringify({ username: answer.body.admin.username, role: answer.body.admin.role }));
      $('password').value = '';
      places.forget();
      start();
    });
  }
  function signOut() {
    call('POST', '/v1/admin/logout').then(function (answer) {
      if (answer.status !== 204 && answer.status !== 401) { fail(problem(answer)); return; }
      store('yizhan.admin', null);
      signedOut('');
    });
  }

  function start() {
    speak();
    call('GET', '/v1/admin/reports').then(function (answer) {
      if (answer.status === 401) { return; }
      if (answer.status !== 200) {
        only('login');
        $('login-error').textContent = problem(answer);
        show('login-error', true);
        return;
      }
      catalogue = answer.body;
      window.yizhanTitles = {};
      catalogue.forEach(function (one) { one.fields.concat(one.ranked).forEach(function (field) { window.yizhanTitles[field.name] = field.title; }); });
      only('app');
      whatIsSeen().then(function () { read(); load(); });
    });
  }
  /* What his scope is: the top of the units he sees; a keeper sees no unit, but his station. */
  function whatIsSeen() {
    return call('GET', '/v1/admin/units?limit=1').then(function (units) {
      var top = units.status === 200 && units.body[0];
      if (top) { seen = { kind: top.parent_id === null ? 'seesCity' : 'seesUnit', name: top.name, isCity: top.parent_id === null, unit: top.id }; return; }
      return call('GET', '/v1/admin/stations?limit=2').then(function (stations) {
        var one = stations.status === 200 && stations.body[0];
        seen = one ? { kind: 'seesStation', name: one.name, station: one.id } : { kind: 'seesNone', name: '' };
      });
    }).then(sayWho);
  }
  function who() { try { return JSON.parse(stored('yizhan.admin')) || {}; } catch (e) { return {}; } }
  function sayWho() {
    var name = who().username ? who().username + ' · ' + figures.word('role', who().role) + ' · ' : '';
    $('who').textContent = name + figures.fill(t(seen.kind), { name: seen.name });
  }

  /* --- The choices: they stand in the address, so that a link tells them and the back button works. --- */

  function reportName(one) { return lang === 'zh' ? one.title : figures.plain(one.report); }
  /* What the catalogue says of a thing, in the language of the page. */
  function inCatalogue(one, what) { return lang === 'zh' ? one[what + '_zh'] : one[what]; }
  function sentence(text) { return lang === 'zh' ? text + '。' : text.charAt(0).toUpperCase() + text.slice(1) + '.'; }
  function describedAs(report) { return catalogue.filter(function (one) { return one.report === report; })[0]; }
  function presets() {
    var today = figures.today(), first = today.slice(0, 8) + '01', last = figures.plus(first, -1).slice(0, 8) + '01';
    return [['thisMonth', first, figures.plus(today, 1)], ['lastMonth', last, first], ['lastDays', figures.plus(today, -6), figures.plus(today, 1)], ['thisYear', today.slice(0, 5) + '01-01', figures.plus(today, 1)]];
  }
  function isDay(text) { return /^20[0-9]{2}-[0-9]{2}-[0-9]{2}$/.test(text || '') && !isNaN(Date.parse(text)); }
  function read() {
    var query = new URLSearchParams(location.search);
    chosen = {};
    KEPT.forEach(function (name) { if (query.get(name)) { chosen[name] = query.get(name); } });
    settle();
  }
  /* Makes a whole of what was chosen: what a report cannot do is not kept. */
  function settle() {
    var known = catalogue.map(function (one) { return one.report; });
    if (known.indexOf(chosen.report) < 0) { chosen.report = 'visits'; }
    var what = describedAs(chosen.report);
    if (!isDay(chosen.from) || !isDay(chosen.to)) {
      var month = presets()[figures.today().slice(8) === '01' ? 1 : 0];
      chosen.from = month[1];
      chosen.to = month[2];
    }
    if (what.by.indexOf(chosen.by) < 0) { chosen.by = what.by.indexOf('day') >= 0 ? 'day' : what.by.indexOf('all') >= 0 ? 'all' : 'station'; }
    if (chosen.station) { delete chosen.unit; }
    if (what.buckets.indexOf(chosen.bucket) < 0 || PLACES.indexOf(chosen.by) < 0) { delete chosen.bucket; }
    if (!mayCompare()) { delete chosen.compare; }
    if (what.figures.indexOf(chosen.figure) < 0) { delete chosen.figure; }
    if (what.figures.length && !chosen.figure) { chosen.figure = what.figures[0]; }
    chosen.monthsOnly = false;
    if (chosen.report === 'occupations' && (chosen.from.slice(8) !== '01' || chosen.to.slice(8) !== '01')) {
      chosen.from = chosen.from.slice(0, 8) + '01';
      chosen.to = figures.monthAfter(figures.plus(chosen.to, -1));
      chosen.monthsOnly = true;
    }
  }
  function mayCompare() {
    var isPlace = PLACES.indexOf(chosen.by) >= 0 && (!chosen.bucket || chosen.bucket === 'hour_of_day');
    return describedAs(chosen.report).compared.length > 0 && (isPlace || (chosen.by === 'hour' && !chosen.bucket));
  }
  function address(changes) {
    var all = {};
    KEPT.forEach(function (name) { if (chosen[name]) { all[name] = chosen[name]; } });
    Object.keys(changes || {}).forEach(function (name) { if (changes[name]) { all[name] = changes[name]; } else { delete all[name]; } });
    var query = new URLSearchParams();
    KEPT.forEach(function (name) { if (all[name]) { query.set(name, all[name]); } });
    return location.pathname + '?' + query.toString();
  }
  /* A report's own sorting and panel do not outlive it. */
  function choose(changes) {
    var cleared = { sort: '', source: '', row: '' };
    Object.keys(changes).forEach(function (name) { cleared[name] = changes[name]; });
    history.pushState(null, '', address(cleared));
    panel.close();
    read();
    load();
  }
  function note(changes) {
    history.replaceState(null, '', address(changes));
    Object.keys(changes).forEach(function (name) { if (changes[name]) { chosen[name] = changes[name]; } else { delete chosen[name]; } });
  }

  function paint() {
    var what = describedAs(chosen.report);
    var nav = $('reports');
    nav.textContent = '';
    catalogue.forEach(function (one) {
      var link = made('a', reportName(one));
      link.href = address({ report: one.report, sort: '', source: '', row: '', figure: '', columns: '' });
      link.setAttribute('data-report', one.report);
      if (one.report === chosen.report) { link.setAttribute('aria-current', 'page'); }
      nav.appendChild(link);
    });
    var current = nav.querySelector('[aria-current]');
    if (current && nav.scrollWidth > nav.clientWidth) { nav.scrollLeft = current.offsetLeft - 40; }
    var buttons = $('presets');
    buttons.textContent = '';
    presets().forEach(function (one) {
      var button = made('button', t(one[0]), 'tool');
      button.type = 'button';
      button.setAttribute('aria-pressed', String(one[1] === chosen.from && one[2] === chosen.to));
      button.addEventListener('click', function () { choose({ from: one[1], to: one[2] }); });
      buttons.appendChild(button);
    });
    $('from').value = chosen.from;
    $('to').value = figures.plus(chosen.to, -1);
    choices('by', what.by.map(function (by) { return [by, figures.word('by', by)]; }), chosen.by, inCatalogue(what, 'dimensions'));
    choices('bucket', [['', t('noBucket')]].concat(what.buckets.map(function (bucket) { return [bucket, figures.word('bucket', bucket)]; })), chosen.bucket || '', inCatalogue(what, 'dimensions'));
    choices('figure', what.figures.map(function (name) { return [name, figures.rankedTitle(name)]; }), chosen.figure);
    show('by-field', what.by.length > 1);
    show('bucket-field', what.buckets.length > 0 && PLACES.indexOf(chosen.by) >= 0);
    show('figure-field', what.figures.length > 0);
    show('compare-field', mayCompare());
    $('compare').checked = chosen.compare === 'before';
    sayScope();
  }
  function choices(id, pairs, value, meanings) {
    var select = $(id);
    select.textContent = '';
    pairs.forEach(function (pair) {
      var one = option(pair[0], pair[1]);
      if (meanings && meanings[pair[0]]) { one.title = meanings[pair[0]]; }
      select.appendChild(one);
    });
    select.value = value || '';
    select.title = meanings && meanings[value] ? meanings[value] : '';
  }
  function everything() { return seen.isCity ? t('wholeCity') : t('everything') + (seen.name ? '（' + seen.name + '）' : ''); }
  function scopeName(of) {
    of = of || chosen;
    if (of.station) { var station = places.known.station[of.station]; return station ? station.name + ' ' + station.code : of.station; }
    if (of.unit) { return places.known.unit[of.unit] ? places.known.unit[of.unit].name : ''; }
    return everything();
  }
  function sayScope() { if (document.activeElement !== $('scope')) { $('scope').value = scopeName(); } }

  /* --- Places --- */

  /* Gives {station, unit} as the API wants them, or {wrong: sentence}. */
  function placeAsked() {
    if (chosen.station) {
      return places.station(chosen.station).then(function (found) {
        if (found && found.id) { return { station: found.id }; }
        return { wrong: found === null ? figures.fill(t('noSuchStation'), { code: chosen.station }) : problem(found), status: found && found.status };
      });
    }
    if (chosen.unit) {
      return places.unit(chosen.unit).then(function (found) {
        return found.id ? { unit: found.id } : { wrong: found.status === 422 ? t('problems').unit_not_found : problem(found), status: found.status };
      });
    }
    return Promise.resolve({});
  }

  /* --- The report --- */

  function query(place, changes) {
    var made = new URLSearchParams();
    var all = { from: chosen.from, to: chosen.to, by: chosen.by, bucket: chosen.bucket, compare: chosen.compare, figure: chosen.figure, unit: place.unit, station: place.station };
    Object.keys(changes || {}).forEach(function (name) { all[name] = changes[name]; });
    Object.keys(all).forEach(function (name) { if (all[name]) { made.set(name, all[name]); } });
    return made.toString();
  }
  function load() {
    if (asking) { asking.abort(); }
    var mine = asking = new AbortController();
    clearTimeout(drawTimer);
    told = null;
    paint();
    fail('');
    $('ahead').open = false;
    ['tools', 'chart', 'ahead', 'more', 'download'].forEach(function (id) { show(id, false); });
    ['table', 'count', 'notes', 'drawing'].forEach(function (id) { $(id).textContent = ''; });
    $('filter').value = '';
    sayTitle();
    if (supposed) { supposed.moved(); }
    var wrong = wrongPeriod();
    if (wrong) { $('state').textContent = ''; fail(wrong); return; }
    $('state').textContent = t('receiving');
    $('result').setAttribute('aria-busy', 'true');
    placeAsked().then(function (place) {
      if (mine.signal.aborted || !catalogue) { return; }
      if (place.wrong) { $('state').textContent = ''; $('result').setAttribute('aria-busy', 'false'); fail(place.wrong, place.status === 0 ? 'retry' : '', load); return; }
      sayScope();
      sayTitle();
      var path = '/v1/admin/reports/' + chosen.report + '?';
      var progress = function (bytes) { if (bytes > 524288) { $('state').textContent = figures.fill(t('received'), { size: figures.size(bytes) }); } };
      var rows = call('GET', path + query(place), undefined, { signal: mine.signal, progress: progress, most: MOST_BYTES });
      var total = hasTotal() ? call('GET', path + query(place, { by: 'all', bucket: '' }), undefined, { signal: mine.signal }) : Promise.resolve(null);
      Promise.all([rows, total]).then(function (both) {
        if (mine.signal.aborted || !catalogue) { return; }
        $('result').setAttribute('aria-busy', 'false');
        $('state').textContent = '';
        if (both[0].status === 401) { return; }
        if (both[0].status !== 200) { placed = place; failed(both[0]); return; }
        told = both[0].body;
        placed = told.place = place;
        told.total = both[1] && both[1].status === 200 && both[1].body.rows.length === 1 ? both[1].body.rows[0] : null;
        tell();
      });
    });
  }
  function wrongPeriod() { return chosen.to <= chosen.from ? t('badOrder') : figures.daysBetween(chosen.from, chosen.to) > LONGEST_DAYS ? t('tooLong') : ''; }
  function hasTotal() {
    var what = describedAs(chosen.report);
    return (chosen.by !== 'all' || chosen.bucket) && what.by.indexOf('all') >= 0 && !hasKinds() && !(chosen.station && chosen.by === 'station' && !chosen.bucket);
  }
  function hasKinds() { return chosen.report === 'facilities' || chosen.report === 'occupations'; }
  function periodText() { return figures.fill(t('range'), { from: figures.date(chosen.from), to: figures.date(figures.plus(chosen.to, -1)), days: figures.daysBetween(chosen.from, chosen.to) }); }
  function sayTitle() {
    var what = describedAs(chosen.report);
    var name = reportName(what);
    $('title').textContent = name + ' · ' + scopeName();
    $('says').textContent = sentence(inCatalogue(what, 'says'));
    document.title = name + ' · ' + scopeName() + ' · ' + t('brand');
  }

  /* In the ranking a value is the figure that is asked for, as its own report has it; its sides stand in the row, under names of their own. */
  function rankedBy() { return describedAs('ranking').ranked.filter(function (one) { return one.name === chosen.figure; })[0]; }
  function homeField(name) { return spokenOf().filter(function (one) { return one.name === name; })[0]; }
  function asRanked(field) {
    var of = rankedBy();
    function side(name) { return of[name] && (homeField(of[name]) ? of[name] : name); }
    if (field.name === 'value') { return Object.assign({}, of, { name: 'value', ranked: of.name, numerator: side('numerator'), denominator: side('denominator') }); }
    if (field.name !== 'numerator' && field.name !== 'denominator') { return field; }
    var words = of[field.name], one = words ? homeField(words) || { formula: words, formula_zh: words } : field.name === 'numerator' ? of : field;
    return Object.assign({}, field, { formula: one.formula, formula_zh: one.formula_zh });
  }
  function withSides(row) {
    var found = Object.assign({}, row), of = rankedBy();
    ['numerator', 'denominator'].forEach(function (name) { if (of[name]) { found[of[name]] = row[name]; } });
    return found;
  }
  /* All fields that a formula may speak of. */
  function spokenOf() {
    var mine = describedAs(chosen.report);
    return chosen.report === 'ranking' ? mine.fields.concat(mine.ranked, describedAs(rankedBy().report).fields) : mine.fields;
  }
  /* The fields of the rows: with the period before, each compared figure has three more behind it.
     A share or a mean stays one; what it is made of has the same endings. */
  function fields() {
    var found = [];
    describedAs(chosen.report).fields.forEach(function (field) {
      found.push(chosen.report === 'ranking' ? asRanked(field) : field);
      if (told.compare && describedAs(chosen.report).compared.indexOf(field.name) >= 0) {
        ['_over', '_before', '_change'].forEach(function (ending) {
          var one = { name: field.name + ending, of: field.name, ending: ending, title: field.title, unit: ending === '_change' ? 'share' : field.unit, isRate: !!field.numerator };
          if (one.isRate && ending !== '_change') { one.numerator = ended(field.numerator, ending); one.denominator = ended(field.denominator, ending); }
          found.push(one);
        });
      }
    });
    return found;
  }
  function ended(expression, ending) { return expression.replace(/[a-z][a-z_0-9]*/g, function (name) { return name + ending; }); }
  function columns(all) {
    var main = MAIN[chosen.report];
    function rank(field) { return all ? Number(/^(known|reported)_share$/.test(field.name)) : main.indexOf(field.of || field.name); }
    return fields().filter(function (field) {
      return NAMES.indexOf(field.name) < 0 && field.ending !== '_over' && (all || main.indexOf(field.of || field.name) >= 0);
    }).map(function (field, index) { return { field: field, rank: rank(field), index: index }; }).sort(function (a, b) {
      return a.rank - b.rank || a.index - b.index;
    }).map(function (one) { return one.field; });
  }

  function tell() {
    state();
    var rows = told.rows, all = columns(true), few = columns(false);
    var isAll = chosen.columns === 'all';
    show('tools', rows.length > 0);
    show('filter', rows.length > 15);
    show('columns', all.length > few.length);
    $('columns').textContent = figures.fill(t(isAll ? 'fewColumns' : 'allColumns'), { n: isAll ? few.length : all.length });
    show('sheet', !!chosen.station);
    $('sheet').textContent = figures.fill(t('sheet'), { month: figures.month(chosen.from) });
    if (!rows.length) { return; }
    var place = aheadOf();
    show('ahead', chosen.report === 'occupancy' && !!place);
    $('ahead').firstElementChild.textContent = t(place && place.isStation ? 'nowAhead' : 'ahead');
    chartChoices();
    drawTable();
    reopen();
  }
  function state() {
    var box = $('state'), days = told.completeness;
    box.textContent = '';
    var stop = lang === 'zh' ? '。' : '.';
    box.appendChild(made('p', periodText() + (lang === 'zh' ? '：' : ': ') + figures.daysTold(days) + stop));
    var fresh = [told.rolled_up_to ? figures.fill(t('counted'), { at: figures.time(told.rolled_up_to) }) : t('notCounted')];
    if (told.recounting) { fresh.push(t('recounting')); }
    if (told.calendar_known === false) { fresh.push(t('calendarUnknown')); }
    if (days.days_begun) { fresh.push(t('begunNote')); }
    if (days.days_counted < days.days_over) { fresh.push(figures.fill(t('uncounted'), { n: days.days_over - days.days_counted })); }
    box.appendChild(made('p', fresh.join(lang === 'zh' ? '；' : '; ') + stop));
    if (told.compare) { box.appendChild(made('p', figures.fill(t('compareNote'), { from: figures.date(told.before_from), to: figures.date(figures.plus(told.before_to, -1)) }) + compared())); }
    if (chosen.monthsOnly) { box.appendChild(made('p', figures.fill(t('monthsOnly'), { from: figures.date(chosen.from), to: figures.date(figures.plus(chosen.to, -1)) }), 'note')); }
    var isKnown = told.rows.some(function (row) { return row.known_share > 0; });
    if (!told.rows.length) { box.appendChild(made('p', t(seen.kind === 'seesNone' ? 'seesNone' : 'noStations'), 'note')); } else if (!isKnown) { box.appendChild(made('p', t(days.days_to_come === days.days_asked ? 'futureOnly' : 'nothingYet'), 'note')); }
    notes();
  }
  /* Which days are compared, where all rows say the same. */
  function compared() {
    var all = told.rows.map(function (row) { return figures.comparedDays(row); });
    var isSame = all.every(function (one) { return one === all[0]; });
    return !all.length ? '' : (lang === 'zh' ? '' : ' ') + (isSame ? all[0] : t('comparedApart'));
  }
  function notes() {
    var box = $('notes'), found = [];
    if (!told.rows.length) { return; }
    found.push(t('dash'));
    if (told.rows.some(function (row) { return row.suppressed; })) { found.push(figures.fill(t('hiddenNote'), { k: told.rows[0].k })); }
    if (told.rows.some(function (row) { return row.beyond_retention; })) { found.push(t('lostNote')); }
    if (told.report === 'access') {
      if (told.refused_without_station === undefined) { found.push(t('nowhereHidden')); } else {
        var sum = Object.keys(told.refused_without_station).reduce(function (all, name) { return all + told.refused_without_station[name]; }, 0);
        if (sum) { found.push(figures.fill(t('nowhere'), { n: figures.grouped(sum, 0), list: figures.reasons(told.refused_without_station, 99) })); }
      }
    }
    if (told.report === 'ranking') { found.push(t('rankingNote')); }
    if (told.report === 'occupancy' && told.rows.some(function (row) { return row.known_share > 0 && row.crowded_minutes === null; })) { found.push(t('insideNote')); }
    var what = describedAs(told.report);
    found.push(sentence(inCatalogue(what, 'privacy')));
    if (seen.kind !== 'seesCity') { found.push(figures.fill(t(seen.kind), { name: seen.name })); }
    box.textContent = '';
    found.forEach(function (text) { box.appendChild(made('p', text, 'sub')); });
  }

  function drawTable() {
    table.show({
      rows: told.rows, fields: columns(chosen.columns === 'all'), total: told.total, by: chosen.by, bucket: chosen.bucket, sort: chosen.sort || '', filter: $('filter').value,
      isTimed: PLACES.indexOf(chosen.by) < 0 && !hasKinds(), nameTitle: nameTitle(), caption: $('title').textContent + ' · ' + periodText(),
      says: function (field) { return figures.readable(formulaOf(field), spokenOf()); },
      opens: function (field) { return NO_FIGURES.indexOf(field.unit) < 0 && field.name !== 'seen_at'; },
      into: into
    });
  }
  function nameTitle() {
    var words = chosen.by === 'all' && (chosen.bucket || hasKinds()) ? [] : [figures.word('by', chosen.by)];
    if (chosen.bucket) { words.push(t('period')); }
    if (chosen.report === 'facilities') { words.push(lang === 'zh' ? '设施' : 'facility'); }
    if (chosen.report === 'occupations') { words.push(lang === 'zh' ? '职业' : 'occupation'); }
    var text = words.join(' · ');
    return text.charAt(0).toUpperCase() + text.slice(1);
  }
  function formulaOf(field) {
    if (field.ending) {
      return inCatalogue(describedAs(chosen.report), 'endings')[field.ending].replace(/`(_[a-z]+)`/g, function (all, ending) { return figures.endingTitle(ending, field.isRate); });
    }
    return inCatalogue(field, 'formula');
  }
  /* Beside rows of whole branches: of what the unit above them keeps itself. */
  function isOwn(row) { return chosen.by === 'branch' && row.is_own && told.rows.some(function (one) { return !one.is_own; }); }
  /* A row's name leads into it: a station by day, a unit by station, a month by day. */
  function into(row) {
    var what = describedAs(chosen.report), clear = { sort: '', source: '', row: '', bucket: '', compare: '' };
    function to(changes) { Object.keys(clear).forEach(function (name) { if (changes[name] === undefined) { changes[name] = clear[name]; } }); return address(changes); }
    var isCut = what.by.indexOf('day') >= 0;
    if (row.station && !chosen.station) { return to({ station: row.station, unit: '', by: isCut ? 'day' : what.by.indexOf('all') >= 0 ? 'all' : 'station', report: isCut || chosen.report === 'occupations' ? chosen.report : 'promise' }); }
    /* Below what a unit keeps itself is nothing; who sees one station has no units. */
    if (isOwn(row) || (row.unit && who().role === 'station_keeper')) { return null; }
    if (chosen.by === 'unit' && row.unit && row.unit !== chosen.unit) { return to({ unit: row.unit, station: '', by: 'station' }); }
    if (chosen.by === 'branch' && row.unit) {
      /* Further down; where nothing is below any more, to the stations. */
      if (row.unit !== chosen.unit) { return to({ unit: row.unit, station: '', by: 'branch' }); }
      return row.is_own ? to({ by: 'station' }) : null;
    }
    var span = spanOf(row);
    if (isCut && (chosen.by === 'month' || chosen.by === 'week') && span.isWhole) { return to({ from: span.from, to: span.to, by: 'day' }); }
    if (isCut && chosen.by === 'day') { return to({ from: span.from, to: span.to, by: 'hour' }); }
    return null;
  }
  /* The days that a row is about, within the period. */
  function spanOf(row) {
    var grain = PLACES.indexOf(chosen.by) >= 0 ? chosen.bucket : chosen.by;
    if (!row.day || !grain) { return { from: chosen.from, to: chosen.to, isWhole: row.hour === null || row.hour === undefined }; }
    var end = grain === 'month' ? figures.monthAfter(row.day) : figures.plus(row.day, grain === 'week' ? 7 : 1);
    return { from: row.day < chosen.from ? chosen.from : row.day, to: end > chosen.to ? chosen.to : end, isWhole: grain !== 'hour' };
  }

  /* --- The chart --- */

  function isTimed() {
    if (PLACES.indexOf(chosen.by) < 0) { return told.rows.length > 1; }
    return !!chosen.bucket && (chosen.by === 'all' || !!chosen.station || told.rows.every(function (row) { return row.station === told.rows[0].station && row.unit === told.rows[0].unit && row.operating_model === told.rows[0].operating_model; }));
  }
  function chartable() { return columns(true).filter(function (field) { return !field.ending && ['count', 'share', 'hours', 'seconds', 'milliseconds', 'persons', 'minutes', 'ratio', 'quantity'].indexOf(field.unit) >= 0 && field.name !== 'k'; }); }
  function chartChoices() {
    if (!isTimed()) { show('chart', false); return; }
    var before = $('chart-figure').value, series = $('chart-series').value, able = chartable();
    var main = MAIN[chosen.report][chosen.report === 'occupancy' ? 1 : chosen.report === 'promise' ? 3 : chosen.report === 'facilities' ? 1 : 0];
    choices('chart-figure', able.map(function (field) { return [field.name, figures.title(field) + (figures.unit(field) ? lang === 'zh' ? '（' + figures.unit(field) + '）' : ' (' + figures.unit(field) + ')' : '')]; }), able.some(function (field) { return field.name === before; }) ? before : main);
    var kinds = [];
    told.rows.forEach(function (row) { var kind = row.kind || row.occupation; if (kind && kinds.indexOf(kind) < 0) { kinds.push(kind); } });
    choices('chart-series', kinds.map(function (kind) { return [kind, figures.word(chosen.report === 'facilities' ? 'kind' : 'occupation', kind)]; }), kinds.indexOf(series) >= 0 ? series : kinds[0]);
    show('chart-series', kinds.length > 0);
    show('chart', true);
    drawChart();
  }
  function drawChart() {
    if (!told || !isTimed()) { return; }
    var field = chartable().filter(function (one) { return one.name === $('chart-figure').value; })[0];
    var series = $('chart-series').value;
    var rows = told.rows.filter(function (row) { return !(row.kind || row.occupation) || (row.kind || row.occupation) === series; });
    var points = rows.map(function (row) {
      var found = figures.cell(field, row), value = row[field.name];
      var hidden = value === null || value === undefined;
      return { key: figures.key(row), value: hidden ? null : field.unit === 'seconds' ? value / 60 : value, partial: row.known_share < SURE || (typeof row.reported_share === 'number' && row.reported_share < SURE), name: figures.named(row, chosen.by, chosen.bucket), short: shortName(row), text: found.text };
    });
    var isEmpty = points.every(function (point) { return point.value === null; });
    show('chart', !isEmpty);
    if (isEmpty) { return; }
    var legend = [points.some(function (point) { return point.partial && point.value !== null; }) ? t('unsure') : '', points.some(function (point) { return point.value === null; }) ? t('unknown') : ''];
    $('legend').textContent = legend.filter(Boolean).join(lang === 'zh' ? '；' : '; ');
    var label = $('chart-figure').selectedOptions[0].textContent + ' · ' + periodText();
    window.yizhanChart($('drawing'), points, function (tick) {
      if (field.unit === 'share') { return figures.grouped(tick * 100, tick * 100 % 1 ? 1 : 0) + '%'; }
      return figures.grouped(tick, tick % 1 ? (tick * 10 % 1 ? 2 : 1) : 0);
    }, label);
  }
  function shortName(row) {
    if (row.day && (chosen.by === 'month' || chosen.bucket === 'month')) { return row.day.slice(0, 7); }
    if (row.hour !== null && row.hour !== undefined && !row.day) { return String(row.hour); }
    if (row.day) { return Number(row.day.slice(5, 7)) + '-' + row.day.slice(8); }
    if (row.weekday) { return figures.weekday(row.weekday).slice(lang === 'zh' ? 2 : 0, 3); }
    return figures.when(row, chosen.by, chosen.bucket);
  }

  /* A forecast is of one unit's branch or one station: of all that is seen, its top. */
  function aheadOf() {
    var station = told.place.station || (told.place.unit ? '' : seen.station), unit = told.place.unit || seen.unit;
    return station ? { isStation: true, path: '/v1/admin/stations/' + station } : unit ? { isStation: false, path: '/v1/admin/units/' + unit } : null;
  }

  /* --- Where does this come from --- */

  function reopen() {
    if (!chosen.source) { panel.close(); return; }
    var row = chosen.row === 'total' ? told.total : told.rows.filter(function (one) { return figures.key(one) === chosen.row; })[0];
    var field = fields().filter(function (one) { return one.name === chosen.source; })[0];
    if (!row || !field || NO_FIGURES.indexOf(field.unit) >= 0) { panel.close(); return; }
    cameFrom = { figure: field.name, key: chosen.row };
    panel.open(asked(field, row, chosen.row === 'total'));
  }
  function asked(field, row, isTotal) {
    var span = isTotal ? { from: chosen.from, to: chosen.to } : spanOf(row);
    var name = isTotal ? t('total') + ' · ' + scopeName() : figures.named(row, chosen.by, chosen.bucket) || scopeName();
    var periods = { now: spanText(span), before: told.compare ? spanText({ from: told.before_from, to: told.before_to }) : '' };
    var found = {
      field: field, row: row, report: chosen.report, fields: fields(), formula: formulaOf(field), name: name, isPrivate: chosen.report === 'occupations', query: null,
      periods: periods, period: field.ending === '_before' ? periods.before : periods.now,
      byStation: isOwn(row) ? null : address({ by: 'station', bucket: '', compare: field.ending ? 'before' : '', sort: '', source: '', row: '', from: span.from, to: span.to, unit: row.unit || chosen.unit })
    };
    if (chosen.report === 'ranking') {
      var home = describedAs(rankedBy().report);
      found.fields = found.fields.concat(spokenOf());
      found.row = withSides(row);
      found.elsewhere = { name: reportName(home), href: address({ report: home.report, station: row.station, unit: '', by: 'day', sort: '', source: '', row: '', figure: '' }) };
      found.query = query(told.place, { by: 'station', bucket: '', compare: '', of_station: row.station, figure: field.name, ranked: chosen.figure });
      return found;
    }
    var cut = isTotal ? { by: 'all', bucket: '' } : {};
    ROW_NAMES.forEach(function (each) { if (!isTotal && row[each] !== null && row[each] !== undefined) { cut['of_' + each] = String(row[each]); } });
    cut.compare = '';
    cut.figure = field.name;
    found.query = query(told.place, cut);
    return found;
  }
  function spanText(span) {
    var last = figures.plus(span.to, -1);
    return span.from === last ? figures.date(last) : figures.fill(t('range'), { from: figures.date(span.from), to: figures.date(last), days: figures.daysBetween(span.from, span.to) });
  }
  function openSource(figure, key) {
    history.pushState({ panel: true }, '', address({ source: figure, row: key }));
    chosen.source = figure;
    chosen.row = key;
    reopen();
  }
  function closeSource() {
    if (history.state && history.state.panel) { history.back(); return; }
    note({ source: '', row: '' });
    panel.close();
    if (cameFrom) { table.focus(cameFrom.figure, cameFrom.key); }
  }

  /* --- Taking it away --- */

  function download(form) {
    var path = form === 'pdf'
      ? '/v1/admin/stations/' + placed.station + '/sheet.pdf?month=' + chosen.from.slice(0, 7)
      : '/v1/admin/reports/' + chosen.report + '?' + query(placed, { format: form });
    var buttons = document.querySelectorAll('[data-file]');
    function busy(on) { buttons.forEach(function (button) { button.disabled = on; }); $('download').classList.toggle('working', on); }
    $('download').textContent = t('getting');
    $('download').classList.remove('error');
    show('download', true);
    busy(true);
    call('GET', path, undefined, { asFile: true, progress: function (bytes) { $('download').textContent = figures.fill(t('got'), { size: figures.size(bytes) }); } }).then(function (answer) {
      busy(false);
      if (answer.status !== 200) { $('download').classList.add('error'); $('download').textContent = problem(answer); return; }
      $('download').textContent = figures.fill(t('saved'), { name: keep(answer, chosen.report + '.' + form) });
    });
  }
  /* Saves a file under the name that it came with, and gives that name. */
  function keep(answer, unnamed) {
    var name = /filename="([^"]+)"/.exec(answer.headers.get('Content-Disposition') || '');
    var link = made('a');
    link.href = URL.createObjectURL(answer.body);
    link.download = name ? name[1] : unnamed;
    document.body.appendChild(link);
    link.click();
    link.remove();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 60000);
    return link.download;
  }

  var table = window.yizhanTable($('table'), figures, t, {
    open: openSource,
    sort: function (name) { note({ sort: name }); drawTable(); },
    counted: function (text, left) {
      $('count').textContent = text;
      show('more', left > 0);
      $('more').textContent = figures.fill(t('more'), { n: left });
    }
  });
  var places = window.yizhanPlaces($('scope'), $('places'), figures, t, call, {
    everything: everything,
    name: scopeName,
    isTop: function (unit) { return seen.isCity && unit.parent_id === null; },
    take: function (place) {
      /* One station by station is one row: day by day says more. */
      if (place.station && chosen.by === 'station' && describedAs(chosen.report).by.indexOf('day') >= 0) { place.by = 'day'; }
      choose(place);
    }
  });
  var ahead = window.yizhanAhead($('ahead-told'), figures, t, call, problem);
  var panel = window.yizhanSource($('source'), figures, t, call, problem, { close: closeSource });

  $('login').addEventListener('submit', signIn);
  $('sign-out').addEventListener('click', signOut);
  $('lang').addEventListener('click', function () {
    lang = lang === 'zh' ? 'en' : 'zh';
    store('yizhan.lang', lang);
    speak();
    if (!catalogue) { return; }
    sayWho();
    paint();
    sayTitle();
    if (supposed) { supposed.speak(); }
    $('ahead').open = false;
    if (told) { tell(); } else { load(); }
  });
  $('choices').addEventListener('submit', function (event) { event.preventDefault(); });
  $('reports').addEventListener('click', function (event) {
    var link = event.target.closest('[data-report]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) { return; }
    event.preventDefault();
    choose({ report: link.getAttribute('data-report'), figure: '', columns: '' });
  });
  $('table').addEventListener('click', function (event) {
    var link = event.target.closest('tbody a');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) { return; }
    event.preventDefault();
    history.pushState(null, '', link.href);
    panel.close();
    read();
    load();
    $('result').focus();
  });
  ['by', 'bucket', 'figure'].forEach(function (id) {
    $(id).addEventListener('change', function () { var change = {}; change[id] = $(id).value; choose(change); });
  });
  $('compare').addEventListener('change', function () { choose({ compare: $('compare').checked ? 'before' : '' }); });
  ['from', 'to'].forEach(function (id) {
    $(id).addEventListener('change', function () {
      if (!isDay($('from').value) || !isDay($('to').value)) { fail(t('badDays')); return; }
      choose({ from: $('from').value, to: figures.plus($('to').value, 1) });
      $(id).focus();
    });
  });
  $('filter').addEventListener('input', function () { clearTimeout(drawTimer); drawTimer = setTimeout(drawTable, 120); });
  $('columns').addEventListener('click', function () { note({ columns: chosen.columns === 'all' ? '' : 'all' }); tell(); });
  $('more').addEventListener('click', table.more);
  $('ahead').addEventListener('toggle', function () { if ($('ahead').open) { ahead.show(aheadOf()); } });
  /* Few ask it: what it needs comes when it is first opened. */
  $('supposed').addEventListener('toggle', function () {
    if (supposed || !$('supposed').open) { return; }
    import('/pages/supposed.js').then(function () {
      supposed = supposed || window.yizhanSupposed($('supposed-told'), figures, t, client, {
        chosen: function () { return { from: chosen.from, to: chosen.to, by: chosen.by, bucket: chosen.bucket, unit: chosen.unit, station: chosen.station, wrong: wrongPeriod() }; },
        place: placeAsked, title: function (of) { return scopeName(of) + ' · ' + spanText(of); }, keep: keep, most: MOST_BYTES
      });
    }, function () { $('supposed').open = false; fail(t('networkNow')); });
  });
  $('print').addEventListener('click', function () { window.print(); });
  document.querySelectorAll('[data-file]').forEach(function (button) {
    button.addEventListener('click', function () { download(button.getAttribute('data-file')); });
  });
  $('chart-figure').addEventListener('change', drawChart);
  $('chart-series').addEventListener('change', drawChart);
  $('drawing').addEventListener('click', function (event) {
    var point = event.target.closest('.point');
    if (point) { openSource($('chart-figure').value, point.getAttribute('data-key')); }
  });
  /* Also when the panel opens beside it. */
  var width = 0;
  function fit() {
    if ($('drawing').clientWidth === width || $('chart').hidden) { return; }
    width = $('drawing').clientWidth;
    drawChart();
  }
  if (window.ResizeObserver) { new ResizeObserver(fit).observe($('drawing')); } else { window.addEventListener('resize', fit); }
  window.addEventListener('popstate', function () {
    if (!catalogue) { return; }
    var before = chosen, isOpen = panel.isOpen();
    read();
    function differ(names) { return names.some(function (name) { return before[name] !== chosen[name]; }); }
    if (!told || differ(['report', 'station', 'unit', 'from', 'to', 'by', 'bucket', 'compare', 'figure'])) { load(); return; }
    /* Nothing is asked anew for the panel, the sorting or the columns. */
    if (differ(['sort', 'columns'])) { tell(); return; }
    reopen();
    if (isOpen && !panel.isOpen() && cameFrom) { table.focus(cameFrom.figure, cameFrom.key); }
  });
  start();
}());
