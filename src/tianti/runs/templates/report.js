const figures = {};
for (const element of document.querySelectorAll("script[data-figures]"))
  figures[element.dataset.figures] = JSON.parse(element.textContent);
const root = document.documentElement;

function draw() {
  const css = getComputedStyle(root);
  const ink = css.getPropertyValue("--ink").trim(), line = css.getPropertyValue("--line").trim();
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line };
  for (const [name, figure] of Object.entries(figures[root.dataset.lang])) {
    const place = document.getElementById("figure-" + name);
    if (!place) continue;
    const layout = { margin: { l: 60, r: 16, t: 20, b: 50 }, paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, family: "inherit", size: 13 },
      ...figure.layout };
    for (const key of Object.keys(layout))
      if (/^[xy]axis/.test(key)) layout[key] = { ...axis, ...layout[key] };
    Plotly.react(place, figure.data, layout, { responsive: true, displayModeBar: false });
  }
}

function speak(language) {
  root.dataset.lang = root.lang = language;
  draw();
}

document.getElementById("language").addEventListener("click",
  () => speak(root.dataset.lang === "en" ? "zh-CN" : "en"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
speak(navigator.language.toLowerCase().startsWith("zh") ? "zh-CN" : "en");
