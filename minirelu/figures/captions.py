"""How to read each figure, in two or three sentences: shown by the command and in the report."""

CAPTIONS: dict[str, str] = {
    "fig1": "Each line is a layer: the share of its hidden units that were on at one or more of "
    "the tokens of a batch; the rest, up to 100 %, was silent on the whole batch. Where the "
    "lines part, layers go different ways (figure 1 of the paper).",
    "fig2a": "The first steps, close up: the share of hidden units that are on at one token, on "
    "average. An untrained ReLU is on half of the time, so all lines start near 50 % (figure 2a "
    "of the paper).",
    "fig2b": "Of the units that a sequence uses at all, the one in the middle: at what share of "
    "the sequence's positions is it on? High means that units fire steadily through a text, low "
    "that they respond to single tokens (figure 2b of the paper).",
    "fig3": "Each point is the end of a training with that many hidden units in a layer (figure 3 "
    "of the paper). A falling line: a wider layer uses a smaller share. At twice the width, half "
    "the share would be the same number of units.",
    "fig4": "Each line is a depth, from its first layer to its last, at the end of the training "
    "(figure 4 of the paper); the axis does not begin at 0. If the lines lie on each other, what "
    "counts is a layer's place in the stack, not its number.",
    "price": "Each point is the end of a training with that setting, from left to right. Above, "
    "what was paid: the loss, and beside it the share of units on at a token; below, how many "
    "units fell silent on the whole probe, and what a step took on the machine as it was then.",
    "ladder": "Each point is the end of a training with that setting, each colour a layer. Where "
    "layers part, the pattern across them begins; where the number of units used stops rising, "
    "more width is not put to use. Firing tells of the token by as much as points lie above the "
    "hollow ones.",
    "phase": "Each colour is a layer: to the left fewer units on at a token, to the bottom fewer "
    "used in a batch. Where layers lie on one curve, one that still uses all its units in a batch "
    "is only behind the others; where they part, the same use per token is spread over more units "
    "or fewer.",
    "fig5": "As figure 2a, over the whole run and with even steps. Where a line flattens, the "
    "layer has settled; where it still falls, a longer run would be sparser (figure 5 of the "
    "paper).",
    "loss": "How surprised the model is by the next token, in nats: dots on the probe, grey line "
    "on the training batches. Below the black lines it has learned more than how frequent tokens "
    "are (unigram), and more than which token follows which (bigram).",
    "loss_and_use": "Loss above, units on at a token below, over the same steps. See whether "
    "layers become sparse while the loss falls fastest, or after it.",
    "early": "The first 64 steps, every probe. If lines dip and come back, units fell silent on a "
    "whole sequence or batch and then returned: silence this early does not last.",
    "heatmap": "Rows are layers (first at the bottom), columns are probes, dark is 100 %; all "
    "maps have the same scale. Look for layers that leave their neighbours, and for columns "
    "in which all layers change at once.",
    "fan": "For each layer, how often the units that a sequence uses are on in it: the median "
    "(dots), the middle half (dark) and nine in ten (light). A fan that closes at the bottom: "
    "units respond to single tokens; one that stays open: some fire nearly always.",
    "frequencies": "Units sorted by how often they fire, on an axis where each bin stands for "
    "twice the frequency of the one before; grey, those silent on the whole probe. A hump: most "
    "units alike; weight at the left: a layer of specialists. A longer text would move units out "
    "of the grey bin.",
    "rarefaction": "How many different units a growing text has shown. Solid below dashed: the "
    "tokens of one sequence share units, so new text brings more than its length says. A solid "
    "line that still rises at the end, or lies below Chao1's estimate: more text would show more "
    "units.",
    "reuse": "Within one sequence, the share of units that its first tokens have not used yet. "
    "Solid above dashed (units drawn anew at random for each token, as many as are on): tokens of "
    "a sequence reuse the same units.",
    "drift": "Where a layer is pushed. A mean pre-activation that falls means fewer units on; a "
    "positive mean gradient on those that are on means that each step lowers them. Biases and "
    "weights show what moves: the threshold of the units, or their direction.",
    "silence": "Each line is a layer. Solid: units on at no token of the probe, nor of the larger "
    "text that confirms it. Dotted: dead ones, which the probe has not had on since their death. A "
    "line that falls: units came back. Dotted far below solid: silence that does not last.",
    "survival": "The share of units that have not died yet (Kaplan and Meier's estimate; a unit "
    "that comes back counts as having died). A steep piece: many die then; a flat one: nobody "
    "does. If every unit died by chance at a constant rate, lines would fall like exponentials.",
    "hazard": "Above, how likely a unit that is alive dies in a step; below, the learning rate. "
    "See whether deaths follow the rate up and down, or come early whatever it does; peaks of "
    "single intervals are bursts.",
    "raster": "Each row is a unit, each column a record. Read a panel from below: units that were "
    "silent from the start, then those that died first; at the top those that never did. Blue "
    "specks are units too rare for the probe; grey after black is a unit that came back.",
    "wake": "Texts were searched that make units fire which are silent on all of the held-out "
    "text. Left, what came of it, by layer; right, how many texts it took. Near the top: these "
    "units are not dead, the text never asked them. The rest may be dead, or too hard to find: how "
    "often the search misses is shown by the units silent on the probe only, for which a waking "
    "text is known to exist.",
    "specificity": "Above, the share of each layer's units of each kind; a detector is explained "
    "by few tokens and misses none of them. Below, how much the token read, its neighbours and the "
    "position tell about whether a unit fires; hollow, what chance alone would give: only the "
    "distance between the two is information. Compare the first layer with the last.",
}
