/** Style and script of the status page: inline under a nonce, so that the page needs nothing from anywhere. */

export const style = `
:root { --bg:#f6f7f9; --panel:#fff; --ink:#16191f; --soft:#5d6675; --line:#e3e6eb; --good:#12805c; --busy:#b26a00;
  --bad:#c3272f; --rail:#e9ecf1; --accent:#3457d5; --code:#f1f3f7; }
@media (prefers-color-scheme: dark) { :root { --bg:#101216; --panel:#181b21; --ink:#e8eaee; --soft:#98a1b0; --line:#2a2f38;
  --good:#3ecf9a; --busy:#f0b354; --bad:#ff7b7b; --rail:#2a2f38; --accent:#8ea6ff; --code:#111419; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--bg); color:var(--ink); font:15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width:1040px; margin:0 auto; padding:28px 20px 64px; }
header { display:flex; flex-wrap:wrap; align-items:center; gap:6px 14px; margin-bottom:20px; }
h1 { display:flex; align-items:center; gap:9px; font-size:22px; letter-spacing:-.02em; margin:0; }
h2 { font-size:13px; font-weight:600; color:var(--soft); margin:0 0 8px; }
h3 { font-size:15px; margin:0 0 6px; }
section { margin-top:30px; }
.cards { margin-top:0; }
.mark-a { fill:var(--ink); } .mark-b { fill:var(--accent); }
.state { margin:0; padding:2px 11px; border-radius:99px; font-size:13px; font-weight:600; border:1px solid currentColor; }
.state.good { color:var(--good); } .state.busy { color:var(--busy); } .state.bad { color:var(--bad); }
.about { margin:0 0 0 auto; color:var(--soft); font-size:13px; }
.cards { display:grid; grid-template-columns:2fr 1fr 1fr 1fr; gap:12px; }
.card, .scroll, .empty, .connect article { background:var(--panel); border:1px solid var(--line); border-radius:12px; }
.card { padding:14px 16px; display:flex; flex-direction:column; min-width:0; }
.figure { font-size:28px; font-weight:650; letter-spacing:-.02em; margin:0; font-variant-numeric:tabular-nums; line-height:1.25; }
.figure small { font-size:13px; font-weight:500; color:var(--soft); letter-spacing:0; margin-right:10px; }
.card.bad .figure { color:var(--bad); } .card.busy .figure { color:var(--busy); }
.note { margin:6px 0 0; color:var(--soft); font-size:13px; }
.card .note { margin-top:auto; padding-top:8px; }
.spark { width:100%; height:36px; margin-top:8px; display:block; }
.spark line { stroke:var(--soft); stroke-width:1; stroke-dasharray:3 3; opacity:.5; vector-effect:non-scaling-stroke; }
rect.good { fill:var(--good); } rect.busy { fill:var(--busy); } rect.bad { fill:var(--bad); } rect.idle { fill:var(--soft); }
rect.rail { fill:var(--rail); }
.scroll { overflow-x:auto; }
table { border-collapse:collapse; width:100%; font-size:14px; }
th { text-align:left; font-size:12px; font-weight:500; color:var(--soft); padding:9px 14px 7px; white-space:nowrap; }
td { padding:7px 14px; border-top:1px solid var(--line); white-space:nowrap; vertical-align:middle; }
td.who { max-width:300px; overflow:hidden; text-overflow:ellipsis; font-weight:500; }
.num { font-variant-numeric:tabular-nums; } th.num, td.num { text-align:right; }
td.lag { width:1%; } .bar { margin-right:9px; vertical-align:middle; }
.tag { display:inline-block; font-size:12px; font-weight:500; color:var(--soft); border:1px solid var(--line); border-radius:6px; padding:0 6px; }
.tag.warn { color:var(--busy); border-color:currentColor; }
.dot { display:inline-block; width:8px; height:8px; border-radius:50%; margin-right:7px; }
.dot.good { background:var(--good); } .dot.busy { background:var(--busy); } .dot.bad { background:var(--bad); }
.error { display:block; color:var(--bad); white-space:normal; font-weight:400; } .faint { color:var(--soft); }
.empty { padding:16px; margin:0; color:var(--soft); }
pre { background:var(--code); border:1px solid var(--line); border-radius:8px; padding:10px 12px; overflow-x:auto; margin:8px 0; }
code { font:13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.columns { display:grid; grid-template-columns:1fr 1fr; gap:12px; margin-top:12px; }
.connect article { padding:14px 16px; } ol { margin:0; padding-left:19px; } li { margin:4px 0; }
.connect > p { margin:0 0 8px; } a { color:var(--accent); }
.connect > p.note { margin-top:12px; }
#live.stale { opacity:.55; }
@media (max-width:760px) { main { padding:20px 14px 48px; } .cards { grid-template-columns:1fr 1fr 1fr; gap:8px; }
  .card { padding:11px 12px; } .card.wide { grid-column:1/-1; } .card:not(.wide) .note { font-size:12px; line-height:1.4; }
  .columns { grid-template-columns:1fr; } .about { margin-left:0; width:100%; } .extra { display:none; }
  td, th { padding-left:11px; padding-right:11px; } td.who { max-width:46vw; } }
`;

/** Reads the page again every two seconds while it is looked at, and puts the new figures in place. */
export const script = `
const live = document.getElementById('live');
setInterval(async () => {
  if (document.hidden || String(getSelection()) !== '') return;
  try {
    const answer = await fetch('/?live', { cache: 'no-store' });
    if (answer.status !== 200 && answer.status !== 503) throw new Error('not this page');
    const next = document.createElement('template');
    next.innerHTML = await answer.text();
    live.replaceChildren(next.content);
    live.classList.remove('stale');
  } catch {
    live.classList.add('stale');
  }
}, 2000);
`;
