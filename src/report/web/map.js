/* A collection as points. All texts reach the page as text nodes: names and labels are data. */
'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent), $ = id => document.getElementById(id);
  const n = data.names.length, canvas = $('map'), stage = $('stage'), side = $('side'), context = canvas.getContext('2d');
  const make = (name, parent, text, kind) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    if (kind) node.className = kind;
    if (parent) parent.append(node);
    return node;
  };
  const layouts = [], colourings = [];
  if (data.tsne) layouts.push(['t-SNE', data.tsne]);
  layouts.push(['PCA', data.pca]);
  if (data.label.length) colourings.push(['label', data.label, data.classes]);
  colourings.push(['cluster', data.cluster, null]);
  for (const [name] of layouts) make('option', $('layout'), name);
  for (const [name] of colourings) make('option', $('colour'), 'colour by ' + name);
  let layout = layouts[0][1], colouring = colourings[0], chosen = -1, under = -1, only = -1, found = null;
  let zoom = 1, dx = 0, dy = 0, size = { w: 1, h: 1 };
  /* Hues by the golden angle: neighbours in number are far apart in colour. */
  const hue = (k, light) => k < 0 ? '#8886' : `hsl(${(k * 137.508 + 210) % 360} ${k % 3 === 1 ? 45 : 68}% ${light ? 44 : 62}%)`;
  const dark = matchMedia('(prefers-color-scheme: dark)');
  let box;
  const measure = () => {
    box = { x0: Infinity, x1: -Infinity, y0: Infinity, y1: -Infinity };
    for (let i = 0; i < n; i++) {
      box.x0 = Math.min(box.x0, layout[2 * i]); box.x1 = Math.max(box.x1, layout[2 * i]);
      box.y0 = Math.min(box.y0, layout[2 * i + 1]); box.y1 = Math.max(box.y1, layout[2 * i + 1]);
    }
    if (!(box.x1 > box.x0)) box.x1 = box.x0 + 1;
    if (!(box.y1 > box.y0)) box.y1 = box.y0 + 1;
  };
  const place = i => {
    const scale = Math.min((size.w - 40) / (box.x1 - box.x0), (size.h - 40) / (box.y1 - box.y0)) * zoom;
    return [size.w / 2 + (layout[2 * i] - (box.x0 + box.x1) / 2) * scale + dx,
      size.h / 2 - (layout[2 * i + 1] - (box.y0 + box.y1) / 2) * scale + dy];
  };
  const nearOf = i => data.near.map(list => ({ title: list.title,
    of: list.of.slice(i * data.neighbours, (i + 1) * data.neighbours).filter(k => k >= 0) }));
  function draw() {
    const radius = n > 1500 ? 3 : n > 300 ? 4 : 5.5, ink = getComputedStyle(document.body).color;
    const near = chosen < 0 ? [] : nearOf(chosen).flatMap(list => list.of);
    context.clearRect(0, 0, size.w, size.h);
    for (let i = 0; i < n; i++) {
      const [x, y] = place(i), dim = (found && !found.has(i)) || (only >= 0 && colouring[1][i] !== only);
      context.globalAlpha = dim ? 0.12 : 0.85;
      context.fillStyle = hue(colouring[1][i], !dark.matches);
      context.beginPath();
      context.arc(x, y, found && !dim ? radius + 2 : radius, 0, 7);
      context.fill();
    }
    context.globalAlpha = 1;
    context.strokeStyle = ink;
    if (chosen >= 0) {
      const [x, y] = place(chosen);
      context.lineWidth = 1;
      for (const k of near) {
        const [u, v] = place(k);
        context.globalAlpha = 0.35;
        context.beginPath(); context.moveTo(x, y); context.lineTo(u, v); context.stroke();
      }
      context.globalAlpha = 1;
    }
    for (const i of [chosen, under]) {
      if (i < 0) continue;
      const [x, y] = place(i);
      context.lineWidth = 2;
      context.beginPath(); context.arc(x, y, radius + 3, 0, 7); context.stroke();
    }
  }
  const tip = make('div', stage, undefined, 'tip');
  tip.hidden = true;
  const describe = (i, parent) => {
    if (data.pictures && data.pictures[i]) { const image = make('img', parent); image.alt = ''; image.src = data.pictures[i]; }
    make('div', parent, data.names[i]);
    if (data.label.length && data.label[i] >= 0) make('div', parent, data.classes[data.label[i]], 'soft');
  };
  const hover = (i, x, y) => {
    if (i !== under) { under = i; tip.replaceChildren(); if (i >= 0) describe(i, tip); draw(); }
    tip.hidden = i < 0;
    tip.style.left = Math.min(x + 14, Math.max(size.w - 250, 0)) + 'px';
    tip.style.top = y + 14 + 'px';
  };
  const choose = i => {
    chosen = i;
    side.replaceChildren();
    if (i < 0) { draw(); return; }
    make('h3', side, data.names[i]);
    describe(i, side);
    for (const list of nearOf(i)) {
      make('h3', side, list.title);
      const ol = make('ol', side);
      for (const k of list.of) {
        const li = make('li', ol), cell = make('span', li);
        if (data.pictures && data.pictures[k]) { const image = make('img', cell); image.alt = ''; image.src = data.pictures[k]; }
        make('span', li, data.names[k]);
        make('span', li, data.label.length && data.label[k] >= 0 ? data.classes[data.label[k]] : '', 'soft');
        li.tabIndex = 0;
        li.addEventListener('click', () => choose(k));
        li.addEventListener('keydown', event => { if (event.key === 'Enter') choose(k); });
        li.addEventListener('pointerenter', () => { under = k; draw(); });
      }
    }
    draw();
  };
  const at = event => {
    const frame = canvas.getBoundingClientRect(), x = event.clientX - frame.left, y = event.clientY - frame.top;
    let best = -1, least = 14 * 14;
    for (let i = 0; i < n; i++) {
      const [u, v] = place(i), s = (u - x) ** 2 + (v - y) ** 2;
      if (s < least) { least = s; best = i; }
    }
    return [best, x, y];
  };
  /* What is pressed is chosen: a click comes with rounded coordinates, and on a touch screen after the pointer has left. */
  let drag = null, moved = false, pressed = -1;
  canvas.addEventListener('pointerdown', event => { drag = [event.clientX - dx, event.clientY - dy, event.clientX, event.clientY]; moved = false; pressed = at(event)[0]; });
  canvas.addEventListener('pointermove', event => {
    if (drag && (moved || Math.hypot(event.clientX - drag[2], event.clientY - drag[3]) > 4)) {
      moved = true;
      dx = event.clientX - drag[0]; dy = event.clientY - drag[1];
      draw();
    } else hover(...at(event));
  });
  addEventListener('pointerup', () => { drag = null; });
  canvas.addEventListener('click', () => { if (!moved) choose(pressed); });
  canvas.addEventListener('pointerleave', () => hover(-1, 0, 0));
  canvas.addEventListener('dblclick', () => { zoom = 1; dx = dy = 0; draw(); });
  canvas.addEventListener('wheel', event => {
    const factor = Math.exp(-event.deltaY / 400), [, x, y] = at(event), next = Math.min(Math.max(zoom * factor, 0.5), 60);
    dx = x - size.w / 2 - (x - size.w / 2 - dx) * next / zoom;
    dy = y - size.h / 2 - (y - size.h / 2 - dy) * next / zoom;
    zoom = next;
    event.preventDefault();
    draw();
  }, { passive: false });
  const legend = () => {
    const place = $('legend'), groups = new Map();
    for (const k of colouring[1]) if (k >= 0) groups.set(k, (groups.get(k) || 0) + 1);
    place.replaceChildren();
    only = -1;
    for (const [k, count] of [...groups].sort((a, b) => a[0] - b[0]).slice(0, 60)) {
      const chip = make('button', place), line = make('i', chip);
      chip.type = 'button';
      line.style.background = hue(k, !dark.matches);
      make('span', chip, `${colouring[2] ? colouring[2][k] : k + 1} (${count})`);
      chip.addEventListener('click', () => {
        only = only === k ? -1 : k;
        for (const other of place.children) other.classList.toggle('off', only >= 0 && other !== chip);
        draw();
      });
    }
  };
  $('search').addEventListener('input', () => {
    const wanted = $('search').value.toLowerCase();
    found = wanted ? new Set([...data.names.keys()].filter(i => data.names[i].toLowerCase().includes(wanted))) : null;
    $('found').textContent = found ? `${found.size} found` : '';
    draw();
  });
  $('layout').addEventListener('change', () => { layout = layouts[$('layout').selectedIndex][1]; measure(); zoom = 1; dx = dy = 0; draw(); });
  $('colour').addEventListener('change', () => { colouring = colourings[$('colour').selectedIndex]; legend(); draw(); });
  const fit = () => {
    const width = stage.clientWidth, height = Math.max(320, Math.min(width * 0.75, 760)), ratio = devicePixelRatio || 1;
    size = { w: width, h: height };
    canvas.style.height = height + 'px';
    canvas.width = width * ratio; canvas.height = height * ratio;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    draw();
  };
  measure();
  legend();
  addEventListener('resize', fit);
  fit();
  dark.addEventListener('change', () => { legend(); draw(); });
})();
