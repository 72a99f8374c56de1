"""Names of torchvision.datasets."""

CIFAR100 = CIFAR10 = MNIST = KMNIST = FashionMNIST = ImageFolder = object
