"""Many runs that differ in some settings: which there are, their folder, and training them."""
