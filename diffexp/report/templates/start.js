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
// The first drawing; charts draw themselves as soon as their width is known.
for (const show of [showAnswers, pictureControls, pictureNote, showGrid, pairControls, showPairs, resultControls, showColumns, filterResults, showSelection]) show();
if (get("sort")) sortResults();
if (get("view")) showViewer();
