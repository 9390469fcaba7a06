/* Charts and sliders of a report. All texts reach the page as text nodes: names and labels are data. */
'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const colours = ['#2f86d1', '#e0701a', '#13a37b', '#c46a9b', '#c99a00', '#7d6fd0', '#808890', '#b5543c'];
  const dashes = ['', '6 3', '2 3', '8 3 2 3', '1 2'];
  const W = 460, H = 230, L = 52, R = 8, T = 8, B = 24;
  const make = (name, attributes, parent, text) => {
    const svg = ['svg', 'path', 'line', 'text', 'g', 'rect', 'circle'].includes(name);
    const node = svg ? document.createElementNS('http://www.w3.org/2000/svg', name) : document.createElement(name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  };
  const short = v => v === null || v === undefined || !isFinite(v) ? '–'
    : v !== 0 && (Math.abs(v) < 1e-3 || Math.abs(v) >= 1e5) ? v.toExponential(2) : String(+v.toPrecision(4));
  const count = v => v >= 1e6 ? +(v / 1e6).toPrecision(3) + ' M' : v >= 1e4 ? +(v / 1e3).toPrecision(3) + ' k' : String(+v.toPrecision(6));

  /* A running mean over a twentieth of the curve, weighted by a triangle, so that both ends are means as well. */
  const smooth = y => {
    const radius = Math.max(1, Math.round(y.length / 40));
    return y.map((own, i) => {
      if (own === null) return null;
      let sum = 0, weight = 0;
      for (let k = -radius; k <= radius; k++) {
        const v = y[i + k];
        if (v === null || v === undefined) continue;
        const w = radius + 1 - Math.abs(k);
        sum += w * v;
        weight += w;
      }
      return sum / weight;
    });
  };
  const ticks = (low, high, wanted) => {
    const raw = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(raw)), rest = raw / power;
    const step = power * (rest < 1.5 ? 1 : rest < 3.5 ? 2 : rest < 7.5 ? 5 : 10), out = [];
    for (let i = Math.ceil(low / step); i * step <= high && out.length < 20; i++) out.push(i * step);
    return out;
  };
  const nearest = (x, at) => {
    let best = 0;
    for (let i = 1; i < x.length; i++) if (Math.abs(x[i] - at) < Math.abs(x[best] - at)) best = i;
    return best;
  };

  const drawChart = (chart, parent) => {
    const card = make('div', { class: 'card' }, parent), title = make('h3', {}, card, chart.title);
    const values = chart.series.flatMap(s => s.y.filter(v => v !== null));
    const positive = values.length > 0 && values.every(v => v > 0);
    const low = values.reduce((a, v) => Math.min(a, v), Infinity), high = values.reduce((a, v) => Math.max(a, v), -Infinity);
    let log = positive && high / low > 30;
    const off = chart.series.map(() => false), smoothed = chart.series.map(s => s.sparse ? s.y : smooth(s.y));
    if (positive) {
      const button = make('button', { class: 'small', type: 'button' }, title, log ? 'log' : 'linear');
      button.addEventListener('click', () => { log = !log; button.textContent = log ? 'log' : 'linear'; draw(); });
    }
    const svg = make('svg', { viewBox: `0 0 ${W} ${H}`, role: 'img', 'aria-label': chart.title }, card);
    const legend = make('div', { class: 'legend' }, card);
    const chips = chart.series.map((s, i) => {
      const chip = make('button', { type: 'button' }, legend), line = make('i', {}, chip);
      line.style.background = colours[i % colours.length];
      const text = make('span', {}, chip);
      chip.addEventListener('click', () => { off[i] = !off[i]; chip.classList.toggle('off', off[i]); draw(); });
      return text;
    });
    let x0, x1, px = () => 0, py = () => 0;
    const label = at => chart.series.forEach((s, i) => {
      const y = smoothed[i];
      let k = at === null ? y.length - 1 : nearest(s.x, at);
      while (k > 0 && (y[k] === null || y[k] === undefined)) k--;
      chips[i].textContent = `${s.name} ${short(y[k])}`;
    });
    const path = (x, y, joined) => {
      let d = '', pen = false;
      for (let i = 0; i < y.length; i++) {
        if (y[i] === null) { pen = pen && joined; continue; }
        d += `${pen ? 'L' : 'M'}${px(x[i]).toFixed(1)} ${py(y[i]).toFixed(1)}${pen ? '' : 'h0'}`;
        pen = true;
      }
      return d;
    };
    function draw() {
      svg.replaceChildren();
      const shown = chart.series.filter((s, i) => !off[i]);
      const all = (shown.length ? shown : chart.series).flatMap(s => s.y.filter(v => v !== null));
      const xs = chart.series.flatMap(s => [s.x[0], s.x[s.x.length - 1]]);
      x0 = Math.min(...xs); x1 = Math.max(...xs);
      if (x1 === x0) x1 = x0 + 1;
      let y0 = all.reduce((a, v) => Math.min(a, v), Infinity), y1 = all.reduce((a, v) => Math.max(a, v), -Infinity);
      if (!isFinite(y0)) { y0 = 0; y1 = 1; }
      if (log) { y0 = Math.log10(y0); y1 = Math.log10(y1); }
      const margin = y1 - y0 > 1e-9 * Math.max(Math.abs(y0), Math.abs(y1)) ? 0.05 * (y1 - y0) : Math.max(Math.abs(y0) * 0.1, 1e-6);
      y0 -= margin; y1 += margin;
      px = x => L + (x - x0) / (x1 - x0) * (W - L - R);
      py = y => H - B - ((log ? Math.log10(y) : y) - y0) / (y1 - y0) * (H - T - B);
      const marks = !log ? ticks(y0, y1, 4) : y1 - y0 > 2.2 ? ticks(y0, y1, 4).filter(t => Number.isInteger(t)).map(t => 10 ** t)
        : ticks(10 ** y0, 10 ** y1, 5).filter(v => v > 0);
      for (const v of marks) {
        const at = py(v);
        if (!(at >= T && at <= H - B)) continue;
        make('line', { x1: L, x2: W - R, y1: at, y2: at, stroke: 'var(--line)' }, svg);
        make('text', { x: L - 6, y: at + 4, 'text-anchor': 'end' }, svg, short(v));
      }
      for (const v of ticks(x0, x1, 5)) make('text', { x: px(v), y: H - 7, 'text-anchor': 'middle' }, svg, count(v));
      chart.series.forEach((s, i) => {
        if (off[i]) return;
        const stroke = colours[i % colours.length], common = { fill: 'none', stroke, 'stroke-linecap': 'round', 'stroke-linejoin': 'round' };
        if (!s.sparse) make('path', { ...common, 'stroke-width': 1, 'stroke-opacity': .3, d: path(s.x, s.y, false) }, svg);
        make('path', { ...common, 'stroke-width': 2, 'stroke-dasharray': dashes[(s.run || 0) % dashes.length],
          d: path(s.x, smoothed[i], s.sparse) }, svg);
        if (s.sparse) s.y.forEach((v, k) => { if (v !== null) make('circle', { cx: px(s.x[k]), cy: py(v), r: 2.5, fill: stroke }, svg); });
      });
      label(null);
    }
    draw();
    let rule = null, where = null;
    const leave = () => { if (rule) { rule.remove(); where.remove(); rule = null; label(null); } };
    svg.addEventListener('pointermove', event => {
      const box = svg.getBoundingClientRect(), at = x0 + ((event.clientX - box.left) / box.width * W - L) / (W - L - R) * (x1 - x0);
      leave();
      if (at < x0 || at > x1) return;
      const x = chart.series[0].x[nearest(chart.series[0].x, at)];
      rule = make('line', { x1: px(x), x2: px(x), y1: T, y2: H - B, stroke: 'var(--soft)', 'stroke-dasharray': '2 2' }, svg);
      where = make('text', { x: Math.min(px(x) + 4, W - 70), y: T + 9 }, svg, `${chart.x} ${count(x)}`);
      label(x);
    });
    svg.addEventListener('pointerleave', leave);
  };

  const grid = document.getElementById('charts');
  if (grid) for (const chart of data.charts) drawChart(chart, grid);

  for (const strip of document.querySelectorAll('.strip')) {
    const frames = [...strip.querySelectorAll('.frame')], caption = strip.querySelector('figcaption');
    const show = at => {
      frames.forEach((frame, i) => frame.classList.toggle('shown', i === at));
      caption.textContent = `step ${frames[at].dataset.step} (${at + 1} of ${frames.length})`;
    };
    strip.classList.add('live');
    if (frames.length > 1) {
      const slider = make('input', { type: 'range', min: 0, max: frames.length - 1, step: 1, 'aria-label': 'step of the training' });
      slider.value = frames.length - 1;
      slider.addEventListener('input', () => show(+slider.value));
      caption.before(slider);
    }
    show(frames.length - 1);
  }
})();
