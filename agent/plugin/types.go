package plugin

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// A Duration is a duration in a configuration: a string such as "10s" or "1m30s", from 0
// to MaxDuration. A bare number is an error.
type Duration time.Duration

// MaxDuration is a year, so that adding a Duration to a time does not overflow.
const MaxDuration Duration = Duration(365 * 24 * time.Hour)

// UnmarshalText parses a duration with a unit.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if isNumber(s) {
		return Errorf(`%s has no unit: write a string such as "%ss"`, s, s)
	}
	v, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return Errorf(`%q is not a duration: write a string such as "10s"`, s)
	case v < 0:
		return Errorf("%q is negative", s)
	case Duration(v) > MaxDuration:
		return Errorf("%q is longer than a year (%v)", s, MaxDuration)
	}
	*d = Duration(v)
	return nil
}

// isNumber reports whether s is a number without a unit.
func isNumber(s string) bool {
	n, err := strconv.ParseFloat(s, 64)
	return err == nil && !math.IsInf(n, 0) && !math.IsNaN(n)
}

// MarshalText formats the duration as UnmarshalText reads it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String formats the duration without trailing zero units: "5m", not "5m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// A Size is a number of bytes in a configuration: a string such as "64MiB" or
// "1MB". A bare number is an error.
type Size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

// UnmarshalText parses a number of bytes with a unit.
func (z *Size) UnmarshalText(text []byte) error {
	s := string(text)
	if isNumber(s) {
		return Errorf(`%s has no unit: write a string such as "%sMiB"`, s, s)
	}
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 63)
		if err != nil || n > math.MaxInt64/uint64(u.bytes) {
			break
		}
		*z = Size(int64(n) * u.bytes)
		return nil
	}
	return Errorf(`%q is not a size: write a string such as "64MiB"`, s)
}

// MarshalText formats the size as UnmarshalText reads it.
func (z Size) MarshalText() ([]byte, error) { return []byte(z.String()), nil }

// String formats the size in the largest unit that divides it.
func (z Size) String() string {
	for _, u := range sizeUnits {
		if n := int64(z); n != 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

// Strings is one string or a list of them in a configuration.
type Strings []string

// UnmarshalTOML takes a value from a TOML decoder.
func (l *Strings) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case string:
		*l = Strings{v}
		return nil
	case []any:
		list := make(Strings, 0, len(v))
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return Errorf("%v is not a string", e)
			}
			list = append(list, s)
		}
		*l = list
		return nil
	default:
		return Errorf("%v is neither a string nor a list of strings", v)
	}
}
