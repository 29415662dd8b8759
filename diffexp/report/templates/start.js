if ($("#metric")) setUpCharts();
firstAxes();
pictureControls();
followers.push(showGrid, pairControls, showPairs);
setUpViewer();
setUpResults();
choose({});
