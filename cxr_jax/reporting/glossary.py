"""The words of a report in plain English: what each means, who defined it, and which function computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cxr_jax.evaluation import calibration, conformal, intervals, metrics, rule_draws, shift
from cxr_jax.evaluation.decision_curve import net_benefit
from cxr_jax.evaluation.operating_point import choose_threshold
from cxr_jax.evaluation.predictive_values import predictive_values


@dataclass(frozen=True)
class Term:
    """A word of the report: `meaning` in plain words, `source` and `computed_by` for numbers."""

    title: str
    meaning: str
    source: str = ""  # who defined it, with the year
    computed_by: Callable[..., Any] | None = None

    @property
    def function(self) -> str:
        """Where the number is computed, as a dotted name; empty for a word that is no number."""
        return f"{self.computed_by.__module__}.{self.computed_by.__qualname__}" if self.computed_by else ""


GLOSSARY: dict[str, Term] = {
    "sensitivity": Term(
        "Sensitivity (recall)",
        "Of 100 radiographs with pneumonia, how many are called PNEUMONIA. The others are missed.",
        "Yerushalmy 1947",
        metrics.sensitivity,
    ),
    "specificity": Term(
        "Specificity",
        "Of 100 radiographs without pneumonia, how many are called NORMAL. The others are false alarms.",
        "Yerushalmy 1947",
        metrics.specificity,
    ),
    "precision": Term(
        "Precision (positive predictive value, PPV)",
        "Of 100 calls of PNEUMONIA, how many are right. It falls where pneumonia is rare.",
        "Altman & Bland, BMJ 1994",
        metrics.precision,
    ),
    "negative_predictive_value": Term(
        "Negative predictive value (NPV)",
        "Of 100 calls of NORMAL, how many are right. It falls where pneumonia is common.",
        "Altman & Bland, BMJ 1994",
        metrics.negative_predictive_value,
    ),
    "prevalence": Term(
        "Prevalence",
        "How common pneumonia is among the radiographs that are looked at. PPV and NPV depend on it; sensitivity and "
        "specificity are taken not to.",
        "Altman & Bland, BMJ 1994",
        predictive_values,
    ),
    "accuracy": Term(
        "Accuracy",
        "Share of radiographs that are called what they are. It depends on how many of them are ill.",
        "Maier-Hein et al., Nature Methods 2024",
        metrics.accuracy,
    ),
    "balanced_accuracy": Term(
        "Balanced accuracy",
        "The mean of sensitivity and specificity: the accuracy if half of the radiographs were ill.",
        "Brodersen et al., ICPR 2010",
        metrics.balanced_accuracy,
    ),
    "f1": Term(
        "F1",
        "One number for precision and sensitivity together (their harmonic mean). Missed and false calls both lower "
        "it; right calls of NORMAL do not count.",
        "van Rijsbergen 1979",
        metrics.f1,
    ),
    "matthews_correlation": Term(
        "Matthews correlation",
        "How well calls and truth agree: 1 always, 0 no better than chance, -1 never.",
        "Matthews, BBA 1975",
        metrics.matthews_correlation,
    ),
    "roc_auc": Term(
        "ROC-AUC (area under the ROC curve)",
        "Take one radiograph with pneumonia and one without: the chance that the one with pneumonia gets the higher "
        "score. 0.5 is guessing, 1 is perfect. It does not depend on the threshold.",
        "Hanley & McNeil 1982",
        metrics.roc_auc,
    ),
    "roc": Term(
        "ROC curve",
        "For every threshold, how many of the ill are found (upwards) and how many of the healthy are called ill (to "
        "the right). The closer to the upper left corner, the better; the dotted diagonal is guessing.",
        "Hanley & McNeil 1982",
        metrics.roc_curve,
    ),
    "average_precision": Term(
        "PR-AUC (average precision)",
        "The precision, averaged while the threshold falls until all the ill are found. Calling everything PNEUMONIA "
        "gives the share of the ill.",
        "Davis & Goadrich, ICML 2006",
        metrics.average_precision,
    ),
    "brier": Term(
        "Brier score",
        "How far the probabilities lie from the truth: the mean squared difference. 0 is best; answering 50 % always "
        "gives 0.25.",
        "Brier 1950",
        metrics.brier,
    ),
    "log_loss": Term(
        "Log-loss",
        "How far the probabilities lie from the truth, where being sure and wrong costs most. 0 is best; answering "
        "50 % always gives 0.693.",
        "Good, JRSS B 1952",
        metrics.log_loss,
    ),
    "confusion": Term(
        "Confusion matrix",
        "The four counts behind every call: ill and found, ill and missed, healthy and called healthy, healthy and "
        "called ill.",
        "Maier-Hein et al., Nature Methods 2024",
        metrics.confusion_matrix,
    ),
    "threshold": Term(
        "Threshold (operating point)",
        "From this probability on, a radiograph is called PNEUMONIA. A lower threshold misses fewer and raises more "
        "false alarms. It was fixed on validation before the test images were looked at.",
        "Youden, Cancer 1950, for the rule of that name",
        choose_threshold,
    ),
    "possible_classes": Term(
        "Possible classes (conformal prediction)",
        "The classes that an image may have at a chosen error rate. Of the images of each class that are like those of "
        "validation, at most that share has a set without its own class, whatever the network is worth. A poor network "
        "has larger sets.",
        "Vovk, Lindsay, Nouretdinov & Gammerman 2003; by groups: Lee, Barber & Willett 2023",
        conformal.bounds_of,
    ),
    "specificity_at_sensitivity": Term(
        "Specificity at a given sensitivity",
        "How many of the healthy can be called NORMAL while that share of the ill is found. Read off the test ROC it "
        "is a best case, since nobody knows that threshold beforehand.",
        "Maier-Hein et al., Nature Methods 2024",
        metrics.specificity_at_sensitivity,
    ),
    "interval": Term(
        "Interval (95 %)",
        "What the number might be on other children of the same kind. Where no formula tells it, images are drawn "
        "again by lot, whole groups at a time, and the middle 95 % of the results is shown (group bootstrap).",
        "Field & Welsh, JRSS B 2007",
        intervals.bootstrap_weights,
    ),
    "obuchowski": Term(
        "Obuchowski's interval",
        "An interval of the ROC-AUC by formula, which respects that images of one group are alike.",
        "Obuchowski, Biometrics 1997",
        intervals.obuchowski_covariance,
    ),
    "delong": Term(
        "DeLong's interval",
        "An interval of the ROC-AUC by formula, as if all images were independent.",
        "DeLong et al., Biometrics 1988",
        intervals.delong_covariance,
    ),
    "wilson": Term(
        "Wilson's interval",
        "An interval of a share by formula, as if all images were independent.",
        "Wilson, JASA 1927",
        intervals.wilson_interval,
    ),
    "wilson_of_groups": Term(
        "Wilson's interval by groups",
        "Wilson's interval of a share, for as many independent images as the groups are worth. Five films of one child "
        "tell less than five children.",
        "Rao & Scott, Biometrics 1992",
        intervals.wilson_interval_of_groups,
    ),
    "for_rule": Term(
        "For this threshold, for this rule",
        "The threshold was set by a rule on validation images. For this threshold: what other test images would give. "
        "For this rule: what would come out if the threshold were set anew on other validation images too. Who takes "
        "over the recipe should read the second.",
        "Field & Welsh, JRSS B 2007",
        rule_draws.draw_rule,
    ),
    "calibration_slope": Term(
        "Calibration slope and intercept",
        "How the scores would have to be stretched and moved so that probabilities mean what they say. A slope of 1 "
        "and an intercept of 0 are best. A slope below 1: probabilities are too extreme.",
        "Cox, Biometrika 1958",
        calibration.recalibration,
    ),
    "calibration_in_the_large": Term(
        "Calibration in the large",
        "By how many logits all probabilities lie too low; below 0, too high. 0 is best. At 1 logit, 50 % should be "
        "73 %; at 2 logits, 88 %.",
        "Van Calster et al., BMC Medicine 2019",
        calibration.calibration_in_the_large,
    ),
    "calibration_error": Term(
        "Calibration error (ECE)",
        "Whether 80 % means eight in ten: how far probabilities and shares of pneumonia differ, averaged over bins of "
        "images with similar probabilities. It depends on the bins, so several are given.",
        "Naeini et al., AAAI 2015",
        calibration.expected_calibration_error,
    ),
    "calibration_interval": Term(
        "Interval of a calibration error",
        "The calibration errors that chance could have turned into the one that was found. From 0 on: the "
        "probabilities may be calibrated.",
        "Davison & Hinkley 1997",
        intervals.absolute_sum_interval,
    ),
    "reliability": Term(
        "Reliability curve",
        "For images with similar probabilities, the share that has pneumonia. On the dotted line probabilities mean "
        "what they say; below it they are too high.",
        "DeGroot & Fienberg, The Statistician 1983",
        calibration.reliability_curve,
    ),
    "temperature": Term(
        "Temperature",
        "One number that makes all probabilities more or less extreme, without changing their order, so that they "
        "fit the validation images.",
        "Guo et al., ICML 2017",
        calibration.fit_temperature,
    ),
    "net_benefit": Term(
        "Net benefit (decision curve)",
        "Right calls of PNEUMONIA less false alarms, each alarm counting as little as the threshold probability says. "
        "A network is of use where its line lies above calling all and calling none.",
        "Vickers & Elkin 2006",
        net_benefit,
    ),
    "shift": Term(
        "Shift",
        "Whether scores of the same class moved from validation to test: the chance that a test image scores higher. "
        "0.5 means that they did not move.",
        "Mann & Whitney 1947",
        shift.score_shift,
    ),
    "drop": Term(
        "Fall from validation to test",
        "How much balanced accuracy is lost, parted in two: the classes are harder to tell apart, or the threshold "
        "sits in the wrong place.",
        "Youden, Cancer 1950; the parting is this project's own",
        shift.split_drop,
    ),
    "prior": Term(
        "Correction of the prior",
        "What it would have gained to know how many test images are ill.",
        "Saerens, Latinne & Decaestecker 2002",
        shift.prior_correction,
    ),
    "group": Term(
        "Group",
        "Images that seem to be of one patient, by their file names. It is the best stand-in for a patient, not a "
        "verified one.",
    ),
    "validation": Term(
        "Validation and test",
        "Validation images choose the threshold and the checkpoint. Test images are looked at last and choose nothing.",
    ),
    "baseline": Term(
        "Baseline",
        "What can be reached without a network, here from brightness, contrast, sharpness and the like. A network "
        "that does no better may only know how the picture was taken.",
    ),
    "adjusted_p": Term(
        "Adjusted p-value",
        "The chance of a difference at least this large if there were none, made stricter because several measures "
        "are compared (Holm).",
    ),
    "grad_cam": Term(
        "Heat map (Grad-CAM)",
        "Colours where the network found what raised its score for a class. It is no outline of a disease.",
    ),
    "look": Term(
        "Look at test",
        "One evaluation on the test images. Every look is counted, since who looks often can choose what flatters.",
    ),
}
"""Every word that the report explains, by its key; the metrics have the keys of `evaluation.metrics.METRICS`."""
