/* A chart of rows that are pieces of time: bars or a line, drawn as SVG; what is not known stays open. */
'use strict';
window.yizhanChart = function (box, points, said, label) {
  var NS = 'http://www.w3.org/2000/svg';
  var WIDTH = Math.max(280, box.clientWidth), HEIGHT = 220, LEFT = 58, RIGHT = 8, TOP = 10, BOTTOM = 34;
  var MOST_BARS = 62;
  function node(name, attributes, text) {
    var made = document.createElementNS(NS, name);
    Object.keys(attributes).forEach(function (key) { made.setAttribute(key, attributes[key]); });
    if (text !== undefined) { made.textContent = text; }
    return made;
  }
  function step(most) {
    var rough = most / 4, power = Math.pow(10, Math.floor(Math.log(rough) / Math.LN10));
    return [1, 2, 2.5, 5, 10].map(function (n) { return n * power; }).filter(function (n) { return n >= rough * 0.999; })[0];
  }
  box.textContent = '';
  var known = points.filter(function (point) { return point.value !== null; });
  var most = known.reduce(function (max, point) { return Math.max(max, point.value); }, 0) || 1;
  var each = step(most), top = Math.ceil(most / each - 1e-9) * each;
  var isBars = points.length <= MOST_BARS;
  var room = (WIDTH - LEFT - RIGHT) / points.length;
  function x(index) { return LEFT + room * index; }
  function y(value) { return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top); }
  var svg = node('svg', { viewBox: '0 0 ' + WIDTH + ' ' + HEIGHT, width: WIDTH, height: HEIGHT, role: 'img', 'aria-label': label });
  for (var tick = 0; tick <= top + each / 2; tick += each) {
    svg.appendChild(node('line', { x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick), 'class': tick ? 'grid' : 'axis' }));
    svg.appendChild(node('text', { x: LEFT - 8, y: y(tick) + 4, 'class': 'tick', 'text-anchor': 'end' }, said(tick)));
  }
  var between = Math.max(1, Math.ceil((points.reduce(function (max, point) { return Math.max(max, point.short.length); }, 1) * 8 + 10) / room));
  points.forEach(function (point, index) {
    if (index % between === 0) {
      var middle = x(index) + room / 2, isLast = middle + point.short.length * 4 > WIDTH;
      svg.appendChild(node('text', { x: isLast ? WIDTH - 1 : middle, y: HEIGHT - 14, 'class': 'tick', 'text-anchor': isLast ? 'end' : 'middle' }, point.short));
    }
  });
  var line = '', isOpen = false;
  points.forEach(function (point, index) {
    if (point.value === null) {
      isOpen = false;
      svg.appendChild(node('rect', { x: x(index), y: TOP, width: room, height: HEIGHT - TOP - BOTTOM, 'class': 'unknown' }));
    } else if (!isBars) {
      line += (isOpen ? 'L' : 'M') + (x(index) + room / 2).toFixed(1) + ' ' + y(point.value).toFixed(1);
      isOpen = true;
    }
  });
  if (line) { svg.appendChild(node('path', { d: line, 'class': 'line' })); }
  points.forEach(function (point, index) {
    var tall = point.value === null ? 0 : y(0) - y(point.value);
    var group = node('g', { 'class': 'point', 'data-key': point.key });
    group.appendChild(node('rect', { x: x(index), y: TOP, width: room, height: HEIGHT - TOP - BOTTOM, 'class': 'hit' }));
    if (isBars && point.value !== null) {
      group.appendChild(node('rect', { x: x(index) + room * 0.14, y: y(0) - Math.max(tall, point.value ? 1 : 0), width: room * 0.72, height: Math.max(tall, point.value ? 1 : 0), 'class': point.partial ? 'bar partial' : 'bar' }));
    }
    group.appendChild(node('title', {}, point.name + ': ' + point.text));
    svg.appendChild(group);
  });
  box.appendChild(svg);
};
