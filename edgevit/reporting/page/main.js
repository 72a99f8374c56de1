// Starts the page in the order of need: tables first, the chart when its library is there.

function themed() {
  for (const input of document.querySelectorAll('#theme input')) {
    input.addEventListener('change', () => {
      document.documentElement.dataset.theme = input.value;
      drawChart();
    });
  }
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawChart);
}

/** Draw the chart in the paper's width and colours when the page is printed. */
function printed() {
  window.matchMedia('print').addEventListener('change', () => drawChart());
  window.addEventListener('beforeprint', () => {
    for (const part of document.querySelectorAll('.part')) part.open = true;
  });
}

function folded() {
  const narrow = window.matchMedia('(max-width: 900px)');
  const fold = () => {
    byId('filters').open = !narrow.matches;
    // Beside the chart the filters never fold.
    byId('filters').querySelector('summary').tabIndex = narrow.matches ? 0 : -1;
  };
  narrow.addEventListener('change', fold);
  fold();
}

viewForm();
filterForm();
themed();
printed();
folded();
drawSections();
changed();
document.documentElement.dataset.ready = Math.round(performance.now());
// After two frames the tables are on the screen.
requestAnimationFrame(() => requestAnimationFrame(unpack));
