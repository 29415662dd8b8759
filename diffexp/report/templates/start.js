firstAxes();
readAddress();
setUpAddress();
setUpChart();
setUpParallel();
setUpGrid();
setUpPairs();
setUpResults();
setUpViewer();
on(["pick."], showSelection);
// The first drawing; the chart draws itself as soon as its width is known.
for (const show of [showAnswers, showParallel, pictureControls, pictureNote, showGrid, pairControls, showPairs, resultControls, showColumns, filterResults, showSelection]) show();
if (get("sort")) sortResults();
if (get("view")) showViewer();
