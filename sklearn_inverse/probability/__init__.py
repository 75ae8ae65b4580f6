"""What is believed beforehand, how readings scatter, and what is believed after."""
