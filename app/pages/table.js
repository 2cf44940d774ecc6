/* The table of a report: few rows at first, sorted by a column, every figure leads to its source. */
'use strict';
window.yizhanTable = function (box, figures, t, acts) {
  var AT_ONCE = 200;
  var shown = AT_ONCE;
  var view = null;
  var list = [];

  function made(name, text, kind) {
    var node = document.createElement(name);
    if (text !== undefined) { node.textContent = text; }
    if (kind) { node.className = kind; }
    return node;
  }
  function isText(field) { return ['text', 'id', 'date', 'truth', 'counts'].indexOf(field.unit) >= 0; }

  function sorted() {
    var rows = view.rows;
    var words = view.filter.trim().toLowerCase();
    if (words) {
      rows = rows.filter(function (row) {
        return (figures.named(row, view.by, view.bucket) + ' ' + (row.station || '')).toLowerCase().indexOf(words) >= 0;
      });
    }
    if (!view.sort) { return rows; }
    var down = view.sort.charAt(0) === '-', name = view.sort.replace(/^-/, '');
    var field = view.fields.filter(function (one) { return one.name === name; })[0];
    function value(row) {
      var found = row[name];
      if (name === 'name') { return figures.named(row, view.by, view.bucket); }
      if (found !== null && typeof found === 'object') { return Object.keys(found).reduce(function (sum, key) { return sum + found[key]; }, 0); }
      return typeof found === 'boolean' ? Number(found) : found;
    }
    if (!field && name !== 'name') { return rows; }
    /* No data comes last whichever way it is sorted; equals keep their order. */
    return rows.map(function (row, index) { return { row: row, value: value(row), index: index }; }).sort(function (a, b) {
      var noA = a.value === null || a.value === undefined, noB = b.value === null || b.value === undefined;
      if (noA || noB) { return noA && noB ? a.index - b.index : noA ? 1 : -1; }
      var order = typeof a.value === 'string' ? a.value.localeCompare(b.value, 'zh') : a.value - b.value;
      return (down ? -order : order) || a.index - b.index;
    }).map(function (one) { return one.row; });
  }

  function head() {
    var row = made('tr');
    [{ name: 'name', isName: true }].concat(view.fields).forEach(function (field) {
      var cell = made('th'), button = made('button', undefined, 'sort');
      cell.scope = 'col';
      cell.className = field.isName ? 'name' : isText(field) ? '' : 'num';
      button.type = 'button';
      button.setAttribute('data-sort', field.name);
      button.appendChild(made('span', field.isName ? view.nameTitle : figures.title(field)));
      if (!field.isName && figures.unit(field)) { button.appendChild(made('small', figures.unit(field))); }
      var way = view.sort === field.name ? 'ascending' : view.sort === '-' + field.name ? 'descending' : 'none';
      cell.setAttribute('aria-sort', way);
      button.title = field.isName ? t('sortBy') : view.says(field) + '\n' + t('sortBy');
      cell.appendChild(button);
      row.appendChild(cell);
    });
    var top = made('thead');
    top.appendChild(row);
    return top;
  }

  function line(row, isTotal) {
    var tr = made('tr', undefined, isTotal ? 'total' : '');
    var name = made('th', undefined, 'name');
    name.scope = 'row';
    var link = isTotal ? null : view.into(row);
    var said = isTotal ? t('total') : figures.named(row, view.by, view.bucket);
    var label = made(link ? 'a' : 'span', said);
    if (link) { label.href = link; label.tabIndex = -1; }
    name.appendChild(label);
    if (row.station && !isTotal) { name.appendChild(made('small', row.station)); }
    name.tabIndex = -1;
    tr.appendChild(name);
    tr.setAttribute('data-key', isTotal ? 'total' : figures.key(row));
    view.fields.forEach(function (field) {
      var found = figures.cell(field, row);
      var td = made('td', found.text, (field.unit === 'counts' ? 'long' : isText(field) ? '' : 'num') + (found.mark ? ' ' + found.mark : ''));
      td.tabIndex = -1;
      if (view.opens(field)) {
        td.className += ' open';
        td.setAttribute('data-figure', field.name);
      }
      tr.appendChild(td);
    });
    return tr;
  }

  function draw() {
    list = sorted();
    box.textContent = '';
    var table = made('table', undefined, view.isTimed ? 'timed' : '');
    table.setAttribute('role', 'grid');
    table.appendChild(made('caption', view.caption));
    table.appendChild(head());
    var body = made('tbody');
    if (view.total) { body.appendChild(line(view.total, true)); }
    list.slice(0, shown).forEach(function (row) { body.appendChild(line(row, false)); });
    table.appendChild(body);
    var scroller = made('div', undefined, 'scroll');
    scroller.appendChild(table);
    box.appendChild(scroller);
    if (!list.length && view.filter) { box.appendChild(made('p', t('none'), 'sub')); }
    var first = body.querySelector('td.open') || body.querySelector('th');
    if (first) { first.tabIndex = 0; }
    count();
  }
  function count() {
    var n = Math.min(shown, list.length);
    var all = figures.grouped(list.length, 0);
    var text = figures.fill(t(n < list.length ? 'shown' : 'shownAll'), { shown: figures.grouped(n, 0), all: all });
    if (view.filter.trim()) { text += figures.fill(t('filtered'), { of: figures.grouped(view.rows.length, 0) }); }
    acts.counted(text, Math.min(AT_ONCE, list.length - n));
  }
  function more() {
    var body = box.querySelector('tbody');
    list.slice(shown, shown + AT_ONCE).forEach(function (row) { body.appendChild(line(row, false)); });
    shown += AT_ONCE;
    count();
  }

  function cellOf(target) { return target.closest ? target.closest('tbody td, tbody th') : null; }
  function focusOn(cell) {
    if (!cell) { return; }
    box.querySelectorAll('tbody [tabindex="0"]').forEach(function (old) { old.tabIndex = -1; });
    cell.tabIndex = 0;
    cell.focus();
  }
  function act(cell) {
    var link = cell.querySelector('a');
    if (link) { link.click(); return; }
    if (cell.hasAttribute('data-figure')) { acts.open(cell.getAttribute('data-figure'), cell.parentNode.getAttribute('data-key')); }
  }
  box.addEventListener('click', function (event) {
    var sort = event.target.closest('[data-sort]');
    if (sort) {
      var name = sort.getAttribute('data-sort');
      /* Figures: most first; names: in order; a third time: as the report gave them. */
      var ways = name === 'name' ? ['name', '-name', ''] : ['-' + name, name, ''];
      acts.sort(ways[(ways.indexOf(view.sort) + 1) % 3]);
      box.querySelector('[data-sort="' + name + '"]').focus();
      return;
    }
    var cell = cellOf(event.target);
    if (cell && cell.hasAttribute('data-figure')) { focusOn(cell); act(cell); }
  });
  box.addEventListener('keydown', function (event) {
    var cell = cellOf(event.target);
    if (!cell || event.ctrlKey || event.metaKey || event.altKey) { return; }
    var row = cell.parentNode, index = Array.prototype.indexOf.call(row.children, cell);
    var next = { ArrowRight: cell.nextElementSibling, ArrowLeft: cell.previousElementSibling, Home: row.firstElementChild, End: row.lastElementChild,
      ArrowDown: row.nextElementSibling && row.nextElementSibling.children[index], ArrowUp: row.previousElementSibling && row.previousElementSibling.children[index] }[event.key];
    if (next) { event.preventDefault(); focusOn(next); return; }
    if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); act(cell); }
  });

  return {
    show: function (next, keepRows) { view = next; if (!keepRows) { shown = AT_ONCE; } draw(); },
    more: more,
    cell: function (figure, key) {
      var found = Array.prototype.filter.call(box.querySelectorAll('tbody tr'), function (row) { return row.getAttribute('data-key') === key; })[0];
      return found ? found.querySelector('[data-figure="' + figure + '"]') : null;
    },
    focus: function (figure, key) { focusOn(this.cell(figure, key)); },
    rest: function () { while (shown < list.length) { more(); } }
  };
};
