"""Bidirectional LSTM over the frames (BLSTM): uses past and future frames.

M. Kolbæk, D. Yu, Z.-H. Tan, J. Jensen: "Multitalker speech separation with utterance-level
permutation invariant training of deep recurrent neural networks", IEEE/ACM Transactions on Audio,
Speech, and Language Processing 25(10), 2017 (uPIT-BLSTM; their network has three layers of 896
units).
"""

import keras

from models import lstm


@keras.saving.register_keras_serializable("voices_apart")
class BidirectionalLongShortTermMemory(lstm.LongShortTermMemory):
    """Bidirectional LSTM layers over the frames, then a mask for each output.

    Arguments, inputs and outputs are those of `lstm.LongShortTermMemory`; `units` is per direction.

    Example:
        masks = BidirectionalLongShortTermMemory(num_outputs=2)(np.zeros((1, 100, 129), "float32"))
    """

    bidirectional = True
