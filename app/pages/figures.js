/* How figures, names and times are said: words for values, numbers with their units, null apart from 0. */
'use strict';
window.yizhanFigures = function (t, lang) {
  var ZONE = 'Asia/Shanghai';
  var DASH = '—';
  function zh() { return lang() === 'zh'; }
  function pick(pair) { return pair[zh() ? 0 : 1]; }
  function plain(name) { var text = String(name).replace(/_/g, ' '); return text.charAt(0).toUpperCase() + text.slice(1); }
  function occupation(value) {
    var row = window.OCCUPATIONS.filter(function (one) { return one[0] === value; })[0];
    return row ? row[zh() ? 1 : 2] : null;
  }
  /* A value that has no words yet is shown as it came rather than not at all. */
  function word(kind, value) {
    if (value === null || value === undefined) { return DASH; }
    if (kind === 'occupation' && occupation(value)) { return occupation(value); }
    var known = window.VALUES[kind] && window.VALUES[kind][value];
    return known ? pick(known) : String(value);
  }
  function fill(text, values) {
    return text.replace(/\{(\w+)\}/g, function (all, name) { return values[name] === undefined ? all : values[name]; });
  }

  function grouped(value, digits) {
    return Number(value).toLocaleString(zh() ? 'zh-CN' : 'en-GB', { minimumFractionDigits: digits, maximumFractionDigits: digits });
  }
  /* Less than all never reads 100 %, something never reads 0. */
  function percent(value, signed) {
    var one = (value * 100).toFixed(1);
    if ((value < 1 && one === '100.0') || (value !== 0 && Math.abs(Number(one)) === 0)) { one = (value * 100).toFixed(2); }
    var digits = one.split('.')[1].length;
    return (signed && value > 0 ? '+' : '') + grouped(one, digits) + '%';
  }
  function measured(value, digits) {
    var least = Math.pow(10, -digits);
    if (value !== 0 && Math.abs(value) < least / 2) { return '<' + grouped(least, digits); }
    return grouped(value, digits);
  }

  function parts(instant) {
    var found = {};
    new Intl.DateTimeFormat('en-GB', { timeZone: ZONE, hourCycle: 'h23', year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit' })
      .formatToParts(new Date(instant)).forEach(function (part) { found[part.type] = part.value; });
    return found;
  }
  function clock(instant) { var at = parts(instant); return at.month + '-' + at.day + ' ' + at.hour + ':' + at.minute + ':' + at.second; }
  function time(instant) {
    var at = parts(instant);
    return at.year + '-' + at.month + '-' + at.day + ' ' + at.hour + ':' + at.minute;
  }
  function today() { var at = parts(Date.now()); return at.year + '-' + at.month + '-' + at.day; }
  function plus(day, days) {
    var date = new Date(day + 'T00:00:00Z');
    date.setUTCDate(date.getUTCDate() + days);
    return date.toISOString().slice(0, 10);
  }
  function daysBetween(from, to) { return Math.round((Date.parse(to) - Date.parse(from)) / 86400000); }
  function monthAfter(day) {
    var year = Number(day.slice(0, 4)), month = Number(day.slice(5, 7)) % 12 + 1;
    return (month === 1 ? year + 1 : year) + '-' + ('0' + month).slice(-2) + '-01';
  }
  function date(day) {
    if (!zh()) { return day; }
    return Number(day.slice(0, 4)) + '年' + Number(day.slice(5, 7)) + '月' + Number(day.slice(8)) + '日';
  }
  function month(day) { return zh() ? Number(day.slice(0, 4)) + '年' + Number(day.slice(5, 7)) + '月' : day.slice(0, 7); }
  function weekday(number) { return pick(window.WEEKDAYS[number - 1]); }
  function hour(number) {
    var two = function (n) { return ('0' + n).slice(-2); };
    return two(number) + ':00–' + two(number + 1) + ':00';
  }
  function ofDay(day) { return weekday((new Date(day + 'T00:00:00Z').getUTCDay() + 6) % 7 + 1); }

  /* The unit stands in the head of its column; a share carries its sign itself. */
  function title(field) {
    var base = field.of || field.name, text;
    if (field.ranked) { return rankedTitle(field.ranked); }
    if (zh()) { text = field.title.replace(/（(秒|小时|毫秒|分钟)）$/, ''); } else { text = window.ENGLISH[base] || plain(base); }
    return text;
  }
  function endingTitle(ending, isRate) { return t({ _over: 'daysOver', _before: 'before', _change: isRate ? 'rateChange' : 'change' }[ending]); }
  function measure(field) { return window.UNITS[field.unit] ? pick(window.UNITS[field.unit]) : ''; }
  /* What stands below the title: in what it is measured, or what is compared. */
  function unit(field) {
    if (field.ending) { return endingTitle(field.ending, field.isRate); }
    return measure(field);
  }

  /* Field names in a formula become the titles that the table shows. */
  function readable(text, fields) {
    var known = {};
    fields.forEach(function (field) { known[field.name] = title(field); });
    return text.replace(/[a-z][a-z_0-9]*[a-z0-9]/g, function (name) { return name.indexOf('_') > 0 || / (\/|\+) /.test(text) ? known[name] || name : name; });
  }
  /* What a cell says: {text, mark}; mark tells why there is no number. */
  function cell(field, row) {
    var value = row[field.name];
    if (value === null || value === undefined) {
      if (row.suppressed) { return { text: t('suppressed'), mark: 'hidden' }; }
      if (row.beyond_retention && /unique_workers|anonymous_visits|^visits$|persons|^(visits|occupation)_share$/.test(field.name)) { return { text: t('lost'), mark: 'lost' }; }
      return { text: DASH, mark: 'none' };
    }
    return { text: said(field, value, row), mark: '' };
  }
  function said(field, value, row) {
    if (field.ending === '_change') { return percent(value, true); }
    if (field.ending === '_before' && !field.isRate) { return grouped(value, 1); }
    if (field.ending === '_over' && !field.isRate) { return grouped(value, Number.isInteger(value) ? 0 : 1); }
    if ((field.name === 'numerator' || field.name === 'denominator') && row) { return grouped(value, /uplift/.test(row.figure) ? 3 : /promise|uptime|utilization|coverage|avg_/.test(row.figure) ? 1 : 0); }
    if (field.name === 'figure') { return rankedTitle(value); }
    if (field.name === 'peer_group') {
      var cut = value.lastIndexOf(' ');
      return word('operating_model', value.slice(0, cut)) + ' · ' + value.slice(cut + 1) + (zh() ? ' 座' : ' seats');
    }
    switch (field.unit) {
      case 'share': return percent(value);
      case 'count': return grouped(value, 0);
      case 'gain': return (value > 0 ? '+' : '') + grouped(value, 0);
      case 'hours': return measured(value, 1);
      case 'seconds': return measured(value / 60, 1);
      case 'milliseconds': return grouped(value, 0);
      case 'persons': return Number.isInteger(value) && field.name === 'max_observed' ? grouped(value, 0) : measured(value, 2);
      case 'ratio': return measured(value, 2);
      case 'minutes': return field.name === 'crowded_minutes' ? grouped(value, 0) : measured(value, 1);
      case 'quantity': return measured(value, Number.isInteger(value) ? 0 : 1);
      case 'number': return grouped(value, Number.isInteger(value) ? 0 : 2);
      case 'instant': return time(value);
      case 'truth': return value ? t('yes') : t('no');
      case 'date': return date(value);
      case 'hour': return hour(value);
      case 'counts': return reasons(value, 2);
      default: return word(field.name, value);
    }
  }
  function reasons(counts, most) {
    var found = Object.keys(counts).filter(function (name) { return counts[name]; }).sort(function (a, b) { return counts[b] - counts[a]; });
    var told = found.slice(0, most).map(function (name) { return word('reason', name) + ' ' + grouped(counts[name], 0); });
    if (found.length > most) {
      var rest = found.slice(most).reduce(function (sum, name) { return sum + counts[name]; }, 0);
      told.push(fill(t('top'), { n: grouped(rest, 0) }));
    }
    return told.length ? told.join(zh() ? '，' : ', ') : '0';
  }
  /* How many of the days that were asked for are over, going on and to come. */
  function daysTold(days) {
    var counts = [['over', days.days_over], ['begun', days.days_begun], ['toCome', days.days_to_come]];
    return counts.filter(function (one) { return one[1]; }).map(function (one) { return fill(t(one[0]), { n: one[1] }); }).join(zh() ? '，' : ', ');
  }
  /* Which days of a row are compared, and which are not. */
  function comparedDays(row) {
    var text = fill(t('comparedOf'), { over: row.days_over, days: row.compared_days });
    if (!row.left_out_classes.length) { return text; }
    var classes = row.left_out_classes.map(function (name) { return word('day_class', name); }).join(zh() ? '、' : ', ');
    return text + (zh() ? '' : ' ') + fill(t('leftOut'), { classes: classes });
  }
  function rankedTitle(name) {
    if (!zh()) { return window.ENGLISH[name] || plain(name); }
    return window.yizhanTitles[name] || plain(name);
  }
  /* All digits that the API gave, for the panel. */
  function exact(field, value) {
    if (value === null || value === undefined) { return DASH; }
    if (field.unit === 'counts') { return reasons(value, 99); }
    if (typeof value !== 'number') { return said(field, value); }
    var number = Number(value).toLocaleString(zh() ? 'zh-CN' : 'en-GB', { maximumFractionDigits: 6 });
    if (field.unit === 'seconds') { return number + (zh() ? ' 秒' : ' s'); }
    if (field.unit === 'share') { return number + ' = ' + percent(value); }
    return number + (measure(field) ? ' ' + measure(field) : '');
  }

  /* What a row is about: its place, its time, its kind. */
  function place(row) {
    if (row.station) { return row.name; }
    if (row.operating_model) { return word('operating_model', row.operating_model); }
    if (row.unit) { return row.name; }
    return '';
  }
  function when(row, by, bucket) {
    var found = [];
    var grain = by === 'day' || by === 'week' || by === 'month' ? by : bucket === 'hour' ? 'day' : bucket;
    if (row.day) { found.push(grain === 'month' ? month(row.day) : grain === 'week' ? fill(t('weekOf'), { day: date(row.day) }) : date(row.day) + ' ' + ofDay(row.day)); }
    if (row.weekday) { found.push(weekday(row.weekday)); }
    if (row.day_class) { found.push(word('day_class', row.day_class)); }
    if (row.hour !== null && row.hour !== undefined) { found.push(hour(row.hour)); }
    return found.join(' ');
  }
  function sort(row) {
    if (row.kind) { return word('kind', row.kind); }
    if (row.occupation) { return word('occupation', row.occupation); }
    return '';
  }
  function named(row, by, bucket) { return [place(row, by), when(row, by, bucket), sort(row)].filter(Boolean).join(' · ') || t('total'); }
  function key(row) {
    return [row.station, row.unit, row.operating_model, row.day, row.weekday, row.day_class, row.hour, row.kind, row.occupation].map(function (part) { return part === null || part === undefined ? '' : part; }).join('~');
  }
  function size(bytes) { return bytes < 1048576 ? Math.max(1, Math.round(bytes / 1024)) + ' KB' : (bytes / 1048576).toFixed(1) + ' MB'; }

  return { DASH: DASH, word: word, fill: fill, grouped: grouped, percent: percent, measured: measured, time: time, clock: clock, today: today, plus: plus, daysBetween: daysBetween,
    monthAfter: monthAfter, date: date, month: month, weekday: weekday, hour: hour, title: title, unit: unit, measure: measure, endingTitle: endingTitle, readable: readable, cell: cell, said: said, exact: exact, reasons: reasons, daysTold: daysTold, comparedDays: comparedDays,
    rankedTitle: rankedTitle, place: place, when: when, sort: sort, named: named, key: key, size: size, pick: pick, plain: plain };
};
