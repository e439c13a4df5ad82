// Package epoch writes instants as Amazon's JSON protocols do: seconds since
// 1970 with a fraction.
package epoch

import (
	"encoding/json"
	"fmt"
	"math/big"
	"time"
)

// Time is an instant in JSON. The zero Time stands for none, and is to be left
// out by omitzero.
type Time struct{ time.Time }

// MarshalJSON writes milliseconds, without zeros at the end.
func (t Time) MarshalJSON() ([]byte, error) {
	ms := t.UnixMilli()
	sign := ""
	if ms < 0 {
		sign, ms = "-", -ms
	}
	out := fmt.Sprintf("%s%d.%03d", sign, ms/1000, ms%1000)
	for out[len(out)-1] == '0' {
		out = out[:len(out)-1]
	}
	if out[len(out)-1] == '.' {
		out = out[:len(out)-1]
	}
	return []byte(out), nil
}

// UnmarshalJSON reads any number of seconds within the years 1 to 9999, to the
// millisecond.
func (t *Time) UnmarshalJSON(b []byte) error {
	var n json.Number
	if err := json.Unmarshal(b, &n); err != nil {
		return err
	}
	const longest = 32
	if len(n) > longest {
		return fmt.Errorf("%.32s… is no time", n)
	}
	s, err := n.Float64()
	if err != nil || s < -62135596800 || s >= 253402300800 {
		return fmt.Errorf("%s is no time", n)
	}
	r, _ := new(big.Rat).SetString(n.String()) // a float has not the digits
	ms := new(big.Int).Div(new(big.Int).Mul(r.Num(), big.NewInt(1000)), r.Denom())
	t.Time = time.UnixMilli(ms.Int64()).UTC()
	return nil
}
