"""The style sheet of the report."""

__all__ = ["CSS"]

CSS = """
:root{--ink:#1f2933;--soft:#52606d;--line:#e1e6eb;--paper:#fff;--ground:#f5f7f9;--accent:#0b4f8a}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);line-height:1.5;
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;overflow-wrap:anywhere}
header,main,nav{max-width:1180px;margin:0 auto;padding:0 1.25rem}
header{padding-top:2.25rem;padding-bottom:.75rem}
header p{margin:0;color:var(--soft)}
.kicker{text-transform:uppercase;letter-spacing:.08em;font-size:.75rem;font-weight:600;color:var(--accent)}
h1{margin:.1rem 0 .2rem;font-size:clamp(1.6rem,4vw,2.3rem);line-height:1.15}
nav{position:sticky;top:0;z-index:2;display:flex;gap:.2rem;overflow-x:auto;background:var(--ground);
 border-bottom:1px solid var(--line);padding-top:.35rem;padding-bottom:.35rem;overflow-wrap:normal}
nav a{padding:.3rem .65rem;border-radius:.4rem;white-space:nowrap;font-size:.875rem;color:var(--soft);
 text-decoration:none}
nav a:hover,nav a:focus{background:#e4ebf2;color:var(--ink)}
section{background:var(--paper);border:1px solid var(--line);border-radius:.75rem;margin:1.25rem 0;
 padding:1.1rem 1.4rem 1.4rem;scroll-margin-top:3.2rem}
h2{margin:0 0 .6rem;font-size:1.25rem}
h3{margin:1.3rem 0 .4rem;font-size:1rem}
p{margin:.3rem 0 .8rem;max-width:75ch}
.note{color:var(--soft);font-size:.85rem}
ul{margin:.3rem 0;padding-left:1.2rem}li{margin:.25rem 0;max-width:85ch}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:.5rem;margin:.3rem 0 .6rem}
table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums;overflow-wrap:normal}
th,td{padding:.42rem .8rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
.text{text-align:left}
thead th{background:#f0f3f6;font-weight:600;color:var(--soft)}
tbody th{text-align:left;font-weight:600}thead th:first-child{text-align:left}
tbody tr:last-child>*{border-bottom:0}tbody tr:hover>*{background:#f8fafc}
strong{color:var(--accent)}
.cards{display:grid;gap:.9rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,240px),1fr))}
.cards article{border:1px solid var(--line);border-top:4px solid var(--run);border-radius:.5rem;
 padding:.7rem 1rem .9rem}
.cards h3{margin:0}.cards p{margin:.2rem 0;font-size:.875rem;color:var(--soft)}
.cards .value{font-size:1.9rem;font-weight:650;color:var(--ink);font-variant-numeric:tabular-nums;line-height:1.25}
.cards .change{font-size:.95rem;font-weight:600;margin-left:.6rem;color:var(--accent)}
.cards .label{color:var(--ink)}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;font-size:.875rem}
.legend span::before{content:"";display:inline-block;width:.75rem;height:.75rem;border-radius:.2rem;
 background:var(--run);margin-right:.4rem;vertical-align:-.05rem}
.plots{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));margin:.6rem 0}
.plots figure{align-self:center}
figure{margin:0;min-width:0}
img{display:block;width:100%;height:auto}
.slices{display:grid;gap:.6rem;padding:.6rem}
.slices img{border-radius:.3rem}
figcaption{font-size:.85rem;font-weight:600;padding:.25rem .1rem .35rem;line-height:1.3}
figcaption small{display:block;font-weight:400;color:var(--soft)}
@media(max-width:600px){header,main,nav{padding-left:.75rem;padding-right:.75rem}
 section{padding:.9rem .85rem 1rem;border-radius:.6rem}th,td{padding:.4rem .6rem}
 tbody th{position:sticky;left:0;background:var(--paper)}}
@media print{nav{display:none}body{background:#fff}section{break-inside:avoid-page;border:0}}
"""
