"""Lesson 4, Training CNNs: AlexNet & ResNet. The helper package behind the notebooks.

models/       AlexNet and ResNet, as the papers and the slides draw them
training.py   the training loop: train, train_one_epoch, evaluate, Epoch
anatomy.py    layer_table: shapes, memory, parameters and multiply-adds of any network
audit.py      the published figures of AlexNet beside what follows from its layers
data/         the images: shapes made on the spot, TinyImageNet, CIFAR-10, folders; splits, folds, batches
exercise.py   the exercise: a network at every point of a grid of hyper-parameters
plots.py      the figures, and the same facts as text
memory.py     one setting of the C library that makes training on a processor faster
__main__.py   python -m cnnlesson exercise ...
"""
