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
// The first drawing; many lines of all axes are drawn where they are seen.
for (const show of [showChart, showAnswers, pictureControls, pictureNote, showGrid, pairControls, showPairs, resultControls, showColumns, filterResults, showSelection]) show();
if (get("sort")) sortResults();
if (get("view")) showViewer();
