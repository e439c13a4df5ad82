package pullthrough

import (
	"io"
	"os"
)

// spool holds the bytes of a transfer for those who read them: some in memory, more in a file.
type spool struct {
	dir  string
	buf  []byte
	file *os.File
}

const inMemory = 64 << 10

func (s *spool) append(p []byte, at int64) error {
	if s.file == nil && len(s.buf)+len(p) <= inMemory {
		s.buf = append(s.buf, p...)
		return nil
	}
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, "pullthrough-*")
		if err != nil {
			return err
		}
		s.file = f
		if _, err := f.Write(s.buf); err != nil {
			return err
		}
		s.buf = nil
	}
	_, err := s.file.WriteAt(p, at)
	return err
}

// view returns what reads the bytes before n, while more are appended.
func (s *spool) view() io.ReaderAt {
	if s.file != nil {
		return s.file
	}
	return memory(s.buf)
}

type memory []byte

func (m memory) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, m[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
		os.Remove(s.file.Name())
	}
	s.buf, s.file = nil, nil
}
