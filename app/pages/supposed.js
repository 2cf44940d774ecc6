/* What if the rules were others: supposes hours, seats and rules, and says who would have come in or been turned away. */
'use strict';
(function () {
  var zh = {
    supposedSays: '把所选时间、范围内的每一次扫码，按假设的规则重新判断一遍，按上面选的分行列出。只是推算，不改动任何设置。',
    accessHours: '扫码开放时间', staffedHours: '值守时间', asIs: '照旧', otherHours: '改成…', noAccess: '不开放扫码', noStaff: '全部无人值守',
    hoursHint: '如：每天 06:00-24:00；或 周一至周五 07:00-22:00；周六、周日 09:00-18:00。没写到的日子不开放；节假日按当天的星期，调休上班日按周一，也可另写：节假日 09:00-17:00。',
    seatsThen: '每站座位数', stayThen: '最长停留（分钟）', leftAsIs: '空着就照旧', ignored: '假如没有这些', ignoredSays: '紧急关闭和疏散总是有效。',
    compute: '推算', stop: '停止', computing: '正在推算…已用 {time}。全市一个月要几分钟；请不要关闭页面。', stopped: '已停止，没有结果。',
    nothingSupposed: '请至少改一项：开放时间、座位数、最长停留，或勾选一项。', badHours: '{field}：看不懂“{part}”。请照例子写，如“周一至周五 07:00-22:00”。', badTime: '{field}：“{part}”不是一段时间。小时为 00–24，开始和结束不能相同。', overlapHours: '{field}：{day}的时段互相重叠。', twiceHours: '{field}：“{part}”写了两次。',
    badSeats: '每站座位数请填 1 到 10000 的整数。', badStay: '最长停留请填 5 到 1440 的整数（分钟）。', refusedBecause: '{field}：{why}', cannotSuppose: '这样的假设不能推算：{why}',
    scansReplayed: '重新判断的扫码', newlyIn: '新放行次数', newlyAgain: '其中 {n} 次已在内再次扫码', newlyAway: '新拒绝次数', netChange: '净变化', unmetThen: '未满足需求', changedTo: '{before} → {after}', letInThen: '放行 {before} → {after}',
    noScans: '这段时间和范围里没有可以重新判断的扫码，所以什么也推算不出来。', movedTitle: '结果改变的扫码', movedNone: '没有一次扫码的结果会改变。', movedOnes: '逐次列出（按时间，最多 500 次）', scannedAt: '扫码时间', thenWas: '当时', nowWould: '假设下', scansCount: '次数',
    staleNote: '上面的选择已改，下面仍是原来那次推算的结果。要按新的选择看，请再点“推算”。', takenFor: '推算的前提', withoutMode: '另有 {n} 次扫码当时没有记录模式，无法重新判断。', withoutStation: '另有 {n} 次扫码认不出驿站。', amendedSince: '有 {n} 次扫码，按今天的开放时间算出的模式与当时记录的不同：越多，结果就越不只是这次假设造成的。',
    staysAre: '新放行的人停留多久：{median} 个驿站按停留中位数，{longest} 个按最长停留。', amendedName: '上面的次数', supposing: '假设：{change}'
  };
  var en = {
    supposedSays: 'Every scan of the chosen period and place is decided again under the supposed rules, with the rows chosen above. Nothing is changed.',
    accessHours: 'Hours to scan', staffedHours: 'Staffed hours', asIs: 'as they are', otherHours: 'others…', noAccess: 'no scans at all', noStaff: 'never staffed',
    hoursHint: 'Such as: daily 06:00-24:00; or Mon-Fri 07:00-22:00; Sat, Sun 09:00-18:00. Other days are closed; holidays are as their weekday and make-up workdays as Monday, unless you add: PH 09:00-17:00.',
    seatsThen: 'Seats of each station', stayThen: 'Longest stay (min)', leftAsIs: 'empty: as it is', ignored: 'As if there had been no', ignoredSays: 'Lockdowns and evacuations always stand.',
    compute: 'Compute', stop: 'Stop', computing: 'Computing… {time}. A month of the whole city takes minutes; keep this page open.', stopped: 'Stopped; there is no answer.',
    nothingSupposed: 'Change at least one thing: hours, seats, the longest stay, or tick a box.', badHours: '{field}: “{part}” is not understood. Write it such as “Mon-Fri 07:00-22:00”.', badTime: '{field}: “{part}” is no time span. Hours are 00 to 24, and it cannot end when it begins.', overlapHours: '{field}: spans of {day} overlap.', twiceHours: '{field}: “{part}” stands there twice.',
    badSeats: 'Seats are a whole number, 1 to 10000.', badStay: 'The longest stay is a whole number of minutes, 5 to 1440.', refusedBecause: '{field}: {why}', cannotSuppose: 'This cannot be supposed: {why}',
    scansReplayed: 'Scans decided again', newlyIn: 'Scans newly let in', newlyAgain: '{n} of them by somebody inside already', newlyAway: 'Scans newly turned away', netChange: 'Net change', unmetThen: 'Unmet demand', changedTo: '{before} → {after}', letInThen: 'let in {before} → {after}',
    noScans: 'There are no scans to decide again here, so nothing can be told.', movedTitle: 'Scans that come to another answer', movedNone: 'No scan would have come to another answer.', movedOnes: 'One by one (by time, at most 500)', scannedAt: 'Scanned', thenWas: 'Then', nowWould: 'Supposed', scansCount: 'Scans',
    staleNote: 'The choices above were changed; this is still what was computed before. Choose “Compute” again for the new ones.', takenFor: 'What this takes for granted', withoutMode: '{n} more scans have no recorded mode and cannot be decided again.', withoutStation: '{n} more scans name no station.', amendedSince: 'At {n} scans today\'s hours give another mode than was recorded: the more there are, the less the answer is about the supposition alone.',
    staysAre: 'How long the newly let in stay: by the median of {median} stations, by the longest stay of {longest}.', amendedName: 'the count above', supposing: 'Supposed: {change}'
  };
  Object.assign(window.REPORT_WORDS.zh, zh);
  Object.assign(window.REPORT_WORDS.en, en);
  Object.assign(window.ENGLISH, { recorded_in: 'Let in then', replayed_in: 'Let in, supposed', recorded_refused: 'Refused then', replayed_refused: 'Refused, supposed', newly_let_in: 'Scans newly let in', newly_let_in_again: 'Of these, inside already', newly_turned_away: 'Scans newly turned away', net_change: 'Net change', unmet_demand_before: 'Unmet demand then', unmet_demand_after: 'Unmet demand, supposed' });
  var FIELDS = [['recorded_in', '当时放行'], ['replayed_in', '假设下放行'], ['newly_let_in', '新放行次数'], ['newly_let_in_again', '其中已在内再次扫码'], ['newly_turned_away', '新拒绝次数'], ['net_change', '净变化'], ['recorded_refused', '当时拒绝'], ['replayed_refused', '假设下拒绝'], ['unmet_demand_before', '当时未满足需求'], ['unmet_demand_after', '假设下未满足需求']].map(function (pair) {
    return { name: pair[0], title: pair[1], unit: pair[0] === 'net_change' ? 'gain' : 'count' };
  });
  var KNOWN = { name: 'known_share', title: '可知时间占比', unit: 'share' };
  /* What is supposed not to have been, and where its words stand. */
  var IGNORED = [['exception', 'because'], ['override', 'because'], ['staff_absent', 'because'], ['controller_offline', 'reason'], ['display_required', 'reason'], ['rate_limited', 'reason'], ['impossible_travel', 'reason']];
  var DAYS = { mon: 1, tue: 2, wed: 3, thu: 4, fri: 5, sat: 6, sun: 7, '一': 1, '二': 2, '三': 3, '四': 4, '五': 5, '六': 6, '日': 7, '天': 7 };
  var SPECIAL = { ph: 'public_holiday', '节假日': 'public_holiday', mw: 'makeup_workday', '调休': 'makeup_workday', '调休上班日': 'makeup_workday' };
  var TIMES = ['hour', 'day', 'weekday', 'day_class', 'week', 'month'];
  var PATH = '/v1/admin/reports/what-if';

  /* --- Hours as people write them; what is exported of stations is read as well. --- */

  function day(text) {
    var name = text.trim().toLowerCase().replace(/^(周|星期|礼拜)/, '');
    return /^[1-7]$/.test(name) ? Number(name) : DAYS[/^[a-z]/.test(name) ? name.slice(0, 3) : name];
  }
  function days(text) {
    var found = [];
    if (/^(每天|daily|every ?day)?$/i.test(text)) { return [1, 2, 3, 4, 5, 6, 7]; }
    var isRead = text.split(',').every(function (part) {
      var ends = part.split('-').map(day);
      if (ends.length > 2 || ends.some(function (one) { return !one; }) || ends[1] < ends[0]) { return false; }
      for (var one = ends[0]; one <= (ends[1] || ends[0]); one += 1) { if (found.indexOf(one) < 0) { found.push(one); } }
      return true;
    });
    return isRead ? found : null;
  }
  function minutes(text) { var at = text.split(':'); return Number(at[0]) * 60 + Number(at[1]); }
  function span(text) {
    var at = /^(\d{1,2}:[0-5]\d)-(\d{1,2}:[0-5]\d)$/.exec(text);
    if (!at || minutes(at[1]) >= 1440 || minutes(at[2]) > 1440 || at[1] === at[2]) { return null; }
    return { opens: ('0' + at[1]).slice(-5), closes: ('0' + at[2]).slice(-5) };
  }
  function overlap(spans) {
    var sorted = spans.map(function (one) { var from = minutes(one.opens), to = minutes(one.closes); return [from, to <= from ? to + 1440 : to]; }).sort(function (a, b) { return a[0] - b[0]; });
    return sorted.some(function (one, index) { return index > 0 && one[0] < sorted[index - 1][1]; });
  }
  /* Gives {hours}, or {wrong, part} with the word for what is wrong. */
  window.yizhanHours = function (text) {
    var hours = { regular: [], public_holiday: null, makeup_workday: null }, wrong = null, week = {};
    var plain = text.replace(/[：]/g, ':').replace(/[，、]/g, ',').replace(/[；;。\n]+/g, ';').replace(/\s*(至|到|[-–—－~～])\s*/g, '-');
    plain.split(';').map(function (part) { return part.trim(); }).filter(Boolean).forEach(function (part) {
      if (wrong) { return; }
      var cut = part.search(/\d{1,2}:|closed|关闭|不开放/i), name = (cut < 0 ? part : part.slice(0, cut)).replace(/\s*,\s*/g, ',').replace(/[\s,:]+$/, '');
      var times = cut < 0 ? [] : /^\d/.test(part.slice(cut)) ? part.slice(cut).split(/[\s,]+/).filter(Boolean) : null;
      var spans = (times || []).map(span), bad = spans.indexOf(null), special = SPECIAL[name.toLowerCase()], on = special ? [] : days(name);
      if ((times && !times.length) || !on) { wrong = { wrong: 'badHours', part: part }; return; }
      if (bad >= 0) { wrong = { wrong: 'badTime', part: times[bad] }; return; }
      if (special) {
        if (hours[special]) { wrong = { wrong: 'twiceHours', part: name }; return; }
        hours[special] = spans;
        if (overlap(spans)) { wrong = { wrong: 'overlapHours', part: name }; }
        return;
      }
      on.forEach(function (one) {
        week[one] = (week[one] || []).concat(spans);
        if (!wrong && overlap(week[one])) { wrong = { wrong: 'overlapHours', day: one }; }
      });
    });
    for (var one = 1; one <= 7; one += 1) { (week[one] || []).forEach(function (each) { hours.regular.push({ weekday: one, opens: each.opens, closes: each.closes }); }); }
    if (!wrong && !hours.regular.length && !hours.public_holiday && !hours.makeup_workday) { wrong = { wrong: 'badHours', part: text.trim() }; }
    return wrong || { hours: hours };
  };

  /* --- The form --- */

  function made(name, text, kind) {
    var node = document.createElement(name);
    if (text !== undefined) { node.textContent = text; }
    if (kind) { node.className = kind; }
    return node;
  }

  /* `acts`: `chosen` gives {from, to, by, bucket, unit, station} or {wrong}, `place` promises {unit, station} as ids or
     {wrong}, `title` says them, `keep` saves a file and gives its name, `most` is how many bytes are shown. */
  window.yizhanSupposed = function (box, figures, t, client, acts) {
    var inputs = {}, parts = {}, asking = null, ticking = null, told = null, sort = '';
    function words(text, values) { return figures.fill(t(text), values); }
    function list(values) { return values.join(document.documentElement.lang === 'en' ? ', ' : '，'); }
    function button(key, act, kind) {
      var node = made('button', t(key), kind || 'tool');
      node.type = 'button';
      node.addEventListener('click', act);
      return node;
    }
    function field(name, key, input, more) {
      var node = made('div', undefined, 'field'), label = made('label', t(key));
      input.id = 'supposed-' + name;
      label.htmlFor = input.id;
      node.appendChild(label);
      node.appendChild(input);
      if (more) { node.appendChild(more); }
      inputs[name] = input;
      return node;
    }
    function hoursField(name, key, none) {
      var select = made('select'), text = made('textarea');
      [['', 'asIs'], ['other', 'otherHours'], ['none', none]].forEach(function (pair) { var one = made('option', t(pair[1])); one.value = pair[0]; select.appendChild(one); });
      text.id = 'supposed-' + name + '-text';
      text.rows = 2;
      text.maxLength = 1000;
      text.hidden = true;
      text.setAttribute('aria-label', t(key));
      var hint = made('p', t('hoursHint'), 'sub'), node = field(name, key, select, text);
      hint.id = text.id + '-hint';
      hint.hidden = true;
      text.setAttribute('aria-describedby', hint.id);
      inputs[name + '-text'] = text;
      parts[name] = function () { text.hidden = hint.hidden = select.value !== 'other'; };
      select.addEventListener('change', function () {
        parts[name]();
        if (!text.hidden) { text.focus(); }
      });
      node.appendChild(hint);
      return node;
    }
    function numberField(name, key) {
      var input = made('input');
      input.type = 'text';
      input.inputMode = 'numeric';
      input.maxLength = 5;
      input.autocomplete = 'off';
      input.placeholder = t('leftAsIs');
      return field(name, key, input);
    }
    function build() {
      var kept = {};
      Object.keys(inputs).forEach(function (name) { kept[name] = [inputs[name].value, inputs[name].checked]; });
      box.textContent = '';
      box.appendChild(made('p', t('supposedSays'), 'sub'));
      var form = made('form'), changes = made('div', undefined, 'changes'), ticks = made('fieldset', undefined, 'field');
      form.noValidate = true;
      changes.appendChild(hoursField('access_hours', 'accessHours', 'noAccess'));
      changes.appendChild(hoursField('staffed_hours', 'staffedHours', 'noStaff'));
      changes.appendChild(numberField('capacity', 'seatsThen'));
      changes.appendChild(numberField('max_stay_min', 'stayThen'));
      ticks.appendChild(made('legend', t('ignored')));
      IGNORED.forEach(function (pair) {
        var label = made('label', undefined, 'tick'), input = made('input');
        input.type = 'checkbox';
        inputs['ignore-' + pair[0]] = input;
        input.id = 'supposed-' + pair[0];
        label.appendChild(input);
        label.appendChild(made('span', figures.word(pair[1], pair[0])));
        ticks.appendChild(label);
      });
      ticks.appendChild(made('span', t('ignoredSays'), 'sub'));
      parts.go = made('button', t('compute'), 'tool go');
      parts.files = ['csv', 'xlsx'].map(function (form) { var one = button(form, function () { take(form); }); one.setAttribute('data-supposed-file', form); return one; });
      parts.stop = button('stop', function () { stop(); parts.state.textContent = t('stopped'); });
      parts.state = made('p', '', 'sub');
      parts.state.setAttribute('role', 'status');
      parts.wrong = made('p', '', 'error');
      parts.wrong.setAttribute('role', 'alert');
      parts.told = made('div', undefined, 'told');
      var tools = made('div', undefined, 'tools');
      [parts.go].concat(parts.files, parts.stop).forEach(function (one) { tools.appendChild(one); });
      [changes, ticks, tools].forEach(function (one) { form.appendChild(one); });
      [form, parts.state, parts.wrong, parts.told].forEach(function (one) { box.appendChild(one); });
      Object.keys(kept).forEach(function (name) { inputs[name].value = kept[name][0]; inputs[name].checked = kept[name][1]; });
      parts.access_hours();
      parts.staffed_hours();
      form.addEventListener('submit', function (event) { event.preventDefault(); ask(); });
      busy(!!asking);
      parts.wrong.hidden = true;
      if (told) { tell(); }
    }
    function fail(text, input) {
      parts.wrong.textContent = text;
      parts.wrong.hidden = !text;
      box.querySelectorAll('[aria-invalid]').forEach(function (one) { one.removeAttribute('aria-invalid'); });
      if (input) { input.setAttribute('aria-invalid', 'true'); input.focus(); }
    }
    function busy(on) {
      [parts.go].concat(parts.files).forEach(function (one) { one.disabled = on; });
      parts.stop.hidden = !on;
      parts.state.classList.toggle('working', on);
    }

    /* Reads the form: {change}, or null where something is wrong and was said. */
    function change() {
      var found = {}, wrong = null;
      [['access_hours', 'accessHours'], ['staffed_hours', 'staffedHours']].forEach(function (pair) {
        var way = inputs[pair[0]].value, text = inputs[pair[0] + '-text'];
        if (way === 'none') { found[pair[0]] = null; }
        if (way !== 'other') { return; }
        var read = window.yizhanHours(text.value);
        if (read.hours) { found[pair[0]] = read.hours; return; }
        wrong = wrong || [words(read.wrong, { field: t(pair[1]), part: read.part, day: read.day ? figures.weekday(read.day) : read.part }), text];
      });
      [['capacity', 1, 10000, 'badSeats'], ['max_stay_min', 5, 1440, 'badStay']].forEach(function (one) {
        var text = inputs[one[0]].value.trim(), value = Number(text);
        if (!text) { return; }
        if (!/^[0-9]+$/.test(text) || value < one[1] || value > one[2]) { wrong = wrong || [t(one[3]), inputs[one[0]]]; return; }
        found[one[0]] = value;
      });
      var ignored = IGNORED.map(function (pair) { return pair[0]; }).filter(function (name) { return inputs['ignore-' + name].checked; });
      if (ignored.length) { found.ignore = ignored; }
      if (!wrong && !Object.keys(found).length) { wrong = [t('nothingSupposed'), inputs.access_hours]; }
      if (wrong) { fail(wrong[0], wrong[1]); return null; }
      return found;
    }
    function inWords(asked) {
      var said = [];
      [['access_hours', 'accessHours', 'noAccess'], ['staffed_hours', 'staffedHours', 'noStaff']].forEach(function (one) {
        if (asked.change[one[0]] === null) { said.push(t(one[2])); } else if (asked.change[one[0]]) { said.push(t(one[1]) + ' ' + asked.texts[one[0]]); }
      });
      if (asked.change.capacity) { said.push(t('seatsThen') + ' ' + figures.grouped(asked.change.capacity, 0)); }
      if (asked.change.max_stay_min) { said.push(t('stayThen') + ' ' + figures.grouped(asked.change.max_stay_min, 0)); }
      if (asked.change.ignore) { said.push(t('ignored') + (document.documentElement.lang === 'en' ? ': ' : '：') + list(IGNORED.filter(function (pair) { return asked.change.ignore.indexOf(pair[0]) >= 0; }).map(function (pair) { return figures.word(pair[1], pair[0]); }))); }
      return said.join(document.documentElement.lang === 'en' ? '; ' : '；');
    }

    /* --- Asking: minutes for a month of a city, so it says for how long it has been at it. --- */

    function stop() {
      if (asking) { asking.abort(); }
      asking = null;
      clearInterval(ticking);
      busy(false);
      parts.state.textContent = '';
    }
    function wait() {
      var since = Date.now(), mine = asking = new AbortController();
      function say() {
        var s = Math.floor((Date.now() - since) / 1000);
        parts.state.textContent = words('computing', { time: Math.floor(s / 60) + ':' + ('0' + s % 60).slice(-2) });
      }
      clearInterval(ticking);
      ticking = setInterval(say, 1000);
      say();
      busy(true);
      return mine;
    }
    /* Asks for what the form and the page say now, and hands on what was asked and its answer. */
    function post(query, more, done) {
      if (asking) { return; }
      fail('');
      var supposed = change(), now = acts.chosen();
      if (!supposed) { return; }
      if (now.wrong) { fail(now.wrong); return; }
      var asked = { now: now, change: supposed, texts: { access_hours: inputs['access_hours-text'].value.trim(), staffed_hours: inputs['staffed_hours-text'].value.trim() } };
      var mine = wait();
      more.signal = mine.signal;
      acts.place().then(function (place) {
        if (asking !== mine) { return; }
        if (place.wrong) { stop(); fail(place.wrong); return; }
        var body = { from: now.from, to: now.to, by: now.by, bucket: now.bucket || null, unit: place.unit || null, station: place.station || null, change: supposed };
        client.call('POST', PATH + query, body, more).then(function (answer) {
          if (asking !== mine) { return; }
          stop();
          if (answer.status === 200) { done(asked, answer); } else if (answer.status !== 401) { refused(answer); }
        });
      });
    }
    function ask() {
      post('', { most: acts.most, progress: function () { /* Most of the time nothing has come yet. */ } }, function (asked, answer) {
        told = { asked: asked, answer: answer.body };
        sort = '';
        tell();
      });
    }
    function take(form) {
      post('?format=' + form, { asFile: true }, function (asked, answer) {
        parts.state.textContent = words('saved', { name: acts.keep(answer, 'what-if.' + form) });
      });
    }
    /* A refusal names the field; of the form's own fields the page says which. */
    function refused(answer) {
      var first = answer.body && answer.body.errors && answer.body.errors[0];
      var names = { access_hours: 'accessHours', staffed_hours: 'staffedHours', capacity: 'seatsThen', max_stay_min: 'stayThen', ignore: 'ignored' };
      var name = first && first.loc.filter(function (part) { return names[part]; })[0];
      if (name) { fail(words('refusedBecause', { field: t(names[name]), why: first.message }), inputs[name + '-text'] || inputs[name]); return; }
      if (answer.status === 422 && answer.body && answer.body.code === 'request_invalid') { fail(words('cannotSuppose', { why: first ? first.message : answer.body.detail })); return; }
      fail(client.problem(answer));
    }
    /* --- What was found --- */

    function letIn(outcomes) { return outcomes.granted + outcomes.walk_in; }
    function flat(row) {
      var now = row.figures, found = Object.assign({}, row);
      FIELDS.forEach(function (one) { found[one.name] = null; });
      return now ? Object.assign(found, now, { recorded_in: letIn(now.recorded), replayed_in: letIn(now.replayed), recorded_refused: now.recorded.refused, replayed_refused: now.replayed.refused, net_change: now.newly_let_in - now.newly_turned_away }) : found;
    }
    function gain(value) { return figures.said({ unit: 'gain' }, value); }
    function answerWord(code) { var outcome = window.VALUES.outcome[code]; return outcome ? figures.pick(outcome) : figures.word('reason', code); }
    function decidedWord(one) { return answerWord(one.outcome === 'refused' ? one.reason : one.outcome); }
    function plainTable(heads, rows, numbers) {
      var table = made('table'), head = made('tr'), thead = made('thead'), tbody = made('tbody'), scroller = made('div', undefined, 'scroll');
      heads.forEach(function (key, index) { var th = made('th', t(key), index >= numbers ? 'num' : ''); th.scope = 'col'; head.appendChild(th); });
      rows.forEach(function (row) { var tr = made('tr'); row.forEach(function (text, index) { tr.appendChild(made('td', text, index >= numbers ? 'num' : '')); }); tbody.appendChild(tr); });
      thead.appendChild(head);
      table.appendChild(thead);
      table.appendChild(tbody);
      scroller.appendChild(table);
      scroller.tabIndex = 0;
      return scroller;
    }
    function fold(key, node) {
      var found = made('details');
      found.appendChild(made('summary', t(key)));
      found.appendChild(node);
      return found;
    }
    function tell() {
      var answer = told.answer, now = told.asked.now, totals = flat({ figures: answer.totals, known_share: answer.known_share }), into = parts.told;
      into.textContent = '';
      into.appendChild(made('h2', acts.title(now)));
      into.appendChild(made('p', words('supposing', { change: inWords(told.asked) }), 'sub'));
      into.appendChild(made('p', howComplete(answer), 'sub'));
      parts.stale = made('p', t('staleNote'), 'note');
      into.appendChild(parts.stale);
      moved();
      if (!answer.scans) { into.appendChild(made('p', t(answer.rows.length ? 'noScans' : 'noStations'), 'note')); notes(into); return; }
      var sums = made('dl', undefined, 'sums');
      [['scansReplayed', figures.grouped(answer.scans, 0)], ['newlyIn', figures.grouped(totals.newly_let_in, 0), totals.newly_let_in_again ? words('newlyAgain', { n: figures.grouped(totals.newly_let_in_again, 0) }) : ''], ['newlyAway', figures.grouped(totals.newly_turned_away, 0)], ['netChange', gain(totals.net_change), words('letInThen', { before: figures.grouped(totals.recorded_in, 0), after: figures.grouped(totals.replayed_in, 0) })],
        ['unmetThen', totals.unmet_demand_before === null ? t('lost') : words('changedTo', { before: figures.grouped(totals.unmet_demand_before, 0), after: figures.grouped(totals.unmet_demand_after, 0) })]].forEach(function (one) {
        var each = made('div'), value = made('dd', one[1]);
        if (one[2]) { value.appendChild(made('small', one[2])); }
        each.appendChild(made('dt', t(one[0])));
        each.appendChild(value);
        sums.appendChild(each);
      });
      into.appendChild(sums);
      var rows = made('div', undefined, 'rows'), count = made('p', '', 'sub'), more = button('more', function () { table.more(); }, 'second');
      var table = window.yizhanTable(rows, figures, t, { open: function () { /* No figure of a what-if has a source. */ }, sort: function (name) { sort = name; draw(); }, counted: function (text, left) { count.textContent = text; more.hidden = left <= 0; more.textContent = words('more', { n: left }); } });
      var flats = answer.rows.map(flat);
      var fields = FIELDS.filter(function (one) { return one.name.indexOf('unmet') < 0 || totals.unmet_demand_before !== null; }).concat(KNOWN);
      function draw() {
        var isOne = flats.length === 1 && now.by === 'all' && !now.bucket;
        table.show({ rows: isOne ? [] : flats, fields: fields, total: totals, by: now.by, bucket: now.bucket, sort: sort, filter: '', isTimed: TIMES.indexOf(now.by) >= 0, nameTitle: nameTitle(now), caption: acts.title(now), says: function (one) { return figures.title(one); }, opens: function () { return false; }, into: function () { return null; } });
        count.hidden = isOne;
      }
      [rows, count, more].forEach(function (one) { into.appendChild(one); });
      draw();
      into.appendChild(made('h3', t('movedTitle')));
      if (!answer.totals.moved.length) { into.appendChild(made('p', t('movedNone'), 'sub')); } else {
        into.appendChild(plainTable(['thenWas', 'nowWould', 'scansCount'], answer.totals.moved.map(function (one) { return [answerWord(one.before), answerWord(one.after), figures.grouped(one.scans, 0)]; }), 2));
      }
      if (answer.moved_scans && answer.moved_scans.length) {
        into.appendChild(fold('movedOnes', plainTable(['scannedAt', 'thenWas', 'nowWould'], answer.moved_scans.map(function (one) { return [figures.time(one.scanned_at).slice(0, 10) + ' ' + figures.clock(one.scanned_at).slice(6), decidedWord(one.before), decidedWord(one.after)]; }), 3)));
      }
      notes(into);
    }
    /* How much of what was asked for is over, and whether its holidays are known. */
    function howComplete(answer) {
      var isEnglish = document.documentElement.lang === 'en', said = [figures.daysTold(answer.completeness)];
      if (answer.completeness.days_begun) { said.push(t('begunNote')); }
      if (answer.calendar_known === false) { said.push(t('calendarUnknown')); }
      return said.join(isEnglish ? '; ' : '；') + (isEnglish ? '.' : '。');
    }
    function nameTitle(now) {
      var found = now.by === 'all' && now.bucket ? [] : [figures.word('by', now.by)];
      var text = found.concat(now.bucket ? t('period') : []).join(' · ');
      return text.charAt(0).toUpperCase() + text.slice(1);
    }
    function notes(into) {
      var answer = told.answer, all = made('ul', undefined, 'sub');
      answer.assumes.forEach(function (one) { all.appendChild(made('li', one.says.replace('amended_since', t('amendedName')))); });
      [[answer.without_mode, 'withoutMode'], [answer.without_station, 'withoutStation'], [answer.amended_since, 'amendedSince']].forEach(function (one) {
        if (one[0] || (one[0] === 0 && one[1] === 'amendedSince')) { into.appendChild(made('p', words(one[1], { n: figures.grouped(one[0], 0) }), 'sub')); }
      });
      if (answer.scans) { into.appendChild(made('p', words('staysAre', { median: figures.grouped(answer.stays.by_median, 0), longest: figures.grouped(answer.stays.by_longest, 0) }), 'sub')); }
      into.appendChild(made('p', t('dash'), 'sub'));
      into.appendChild(fold('takenFor', all));
    }
    /* Says so where the page's choices are no longer those of what is shown. */
    function moved() {
      if (!told) { return; }
      var now = acts.chosen();
      parts.stale.hidden = ['from', 'to', 'by', 'bucket', 'unit', 'station'].every(function (name) { return (now[name] || '') === (told.asked.now[name] || ''); });
    }

    build();
    return {
      moved: moved,
      speak: build,
      forget: function () { stop(); told = null; inputs = {}; build(); }
    };
  };
}());
