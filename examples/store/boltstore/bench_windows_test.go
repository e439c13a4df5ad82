package boltstore

import "time"

func processorTime() time.Duration { return 0 }
