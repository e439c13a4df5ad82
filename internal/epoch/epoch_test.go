package epoch

import (
	"encoding/json"
	"testing"
	"time"
)

func TestTime(t *testing.T) {
	for _, c := range []struct {
		at   time.Time
		text string
	}{
		{time.Unix(0, 0), "0"},
		{time.Unix(1767268800, 0), "1767268800"},
		{time.Unix(1767268800, 120e6), "1767268800.12"},
		{time.Unix(1767268800, 999999999), "1767268800.999"},
		{time.Unix(-2, 500e6), "-1.5"},
		{time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), "-62135596800"},
		{time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), "253402300799"},
	} {
		got, err := json.Marshal(Time{c.at})
		if err != nil || string(got) != c.text {
			t.Errorf("%v: %s, %v, want %s", c.at, got, err, c.text)
		}
		var back Time
		if err := json.Unmarshal(got, &back); err != nil || back.UnixMilli() != c.at.UnixMilli() {
			t.Errorf("%s: %v, %v", got, back, err)
		}
	}
	for _, bad := range []string{`"x"`, `1e300`, `253402300800`, `-62135596801`, `true`, `0.00000000000000000000000000000000000001`} {
		if err := json.Unmarshal([]byte(bad), new(Time)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	var whole Time
	if err := json.Unmarshal([]byte("1.767268800123E9"), &whole); err != nil || whole.UnixMilli() != 1767268800123 {
		t.Errorf("%v, %v", whole, err)
	}
}
