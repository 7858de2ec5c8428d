// Draws the figures of tutorials, with the package's own copy of plotly.js.
for (const place of document.querySelectorAll(".figure > script")) {
  const { data, layout } = JSON.parse(place.textContent);
  const room = document.createElement("div");
  place.parentElement.append(room);
  Plotly.newPlot(room, data, layout, { responsive: true, displaylogo: false, showSendToCloud: false });
}
