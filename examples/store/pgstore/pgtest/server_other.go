//go:build !linux

package pgtest

import "errors"

type server struct{ dsn string }

func start() (*server, error) { return nil, errors.New("pgtest needs Linux") }

func (s *server) stop() {}
