"""What can be served, and how: models, their facts and the engines that can run them."""
