package txtar

import (
	"reflect"
	"testing"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		text, comment string
		files         []File
	}{
		{"", "", nil},
		{"no marker", "no marker\n", nil},
		{"a\n-- b --\nc\n", "a\n", []File{{"b", "c\n", 3}}},
		{"-- b --\n-- c d --\n\n-- e --", "", []File{{"b", "", 2}, {"c d", "\n", 3}, {"e", "", 5}}},
		{"-- b --\r\nx\r\ny", "", []File{{"b", "x\ny\n", 2}}},
		{"-- --\n--b--\n--  --\n -- b --\n-- b -- \n", "-- --\n--b--\n--  --\n -- b --\n-- b -- \n", nil},
	} {
		comment, files := Parse(test.text)
		if comment != test.comment || !reflect.DeepEqual(files, test.files) {
			t.Errorf("%q: %q, %+v", test.text, comment, files)
		}
	}
}
