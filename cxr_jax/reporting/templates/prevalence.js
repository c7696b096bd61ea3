(() => {
  const field = document.getElementById("prevalence");
  const told = document.getElementById("prevalence-told");
  const rate = (name) => Number(field.dataset[name]);
  const tell = () => {
    const percent = Number(field.value);
    if (!(percent > 0 && percent < 100)) {
      told.textContent = "Enter a number above 0 and below 100.";
      return;
    }
    const ill = Math.floor(10 * percent + 0.5), well = 1000 - ill;
    const found = Math.floor(ill * rate("sensitivity") + 0.5), alarms = Math.floor(well * (1 - rate("specificity")) + 0.5);
    told.textContent = `Of 1,000 radiographs, ${ill} show pneumonia: ${found} of them are found and ${ill - found} missed. ` +
      `Of the ${well} others, ${alarms} are called ill. So ${found} of ${found + alarms} calls of PNEUMONIA are right, ` +
      `and ${well - alarms} of ${1000 - found - alarms} calls of NORMAL.`;
  };
  field.addEventListener("input", tell);
  document.getElementById("prevalence-choice").hidden = false;
})();
