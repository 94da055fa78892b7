"""What every strategy stands on: the rounds, who takes part, what is sent and what is believed."""
