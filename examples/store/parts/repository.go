package parts

import (
	"bytes"
	"encoding/json"
	"io"

	"github.com/wharfage/wharfage/repository"
)

// EncodeRepository is what a database keeps of a repository: ECR's JSON.
func EncodeRepository(r *repository.Repository) ([]byte, error) { return json.Marshal(r) }

// DecodeRepository reads what EncodeRepository wrote. A setting that it does not
// know is an error: a newer program has set it, and to ignore it would be to
// lose it with the next change.
func DecodeRepository(b []byte) (r repository.Repository, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err = d.Decode(&r); err != nil {
		return repository.Repository{}, err
	}
	if d.InputOffset() < int64(len(b)) {
		return repository.Repository{}, io.ErrUnexpectedEOF
	}
	return r, nil
}
