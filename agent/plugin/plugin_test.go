package plugin

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestDuration(t *testing.T) {
	tests := []struct {
		text, want, err string
	}{
		{"10s", "10s", ""}, {"1m30s", "1m30s", ""}, {"5m", "5m", ""}, {"2h", "2h", ""}, {"0s", "0s", ""}, {"90m", "1h30m", ""},
		{"5", "", `5 has no unit: write a string such as "5s"`},
		{"-1s", "", `"-1s" is negative`},
		{"soon", "", `"soon" is not a duration: write a string such as "10s"`},
		{"inf", "", `"inf" is not a duration: write a string such as "10s"`},
		{"8760h", "8760h", ""},
		{"8760h1ns", "", `"8760h1ns" is longer than a year (8760h)`},
		{"2500000h", "", `"2500000h" is longer than a year (8760h)`},
		{"", "", `"" is not a duration: write a string such as "10s"`},
	}
	for _, tt := range tests {
		var d Duration
		err := d.UnmarshalText([]byte(tt.text))
		if got := errText(err); got != tt.err {
			t.Errorf("%q: error %q, want %q", tt.text, got, tt.err)
		}
		if err == nil && d.String() != tt.want {
			t.Errorf("%q reads as %v, want %s", tt.text, d, tt.want)
		}
	}
}

func TestSize(t *testing.T) {
	tests := []struct {
		text, want, err string
	}{
		{"64MiB", "64MiB", ""}, {"1024 KiB", "1MiB", ""}, {"1GB", "1GB", ""}, {"1000kB", "1MB", ""}, {"0B", "0B", ""}, {"100B", "100B", ""},
		{"64", "", `64 has no unit: write a string such as "64MiB"`},
		{"-1MiB", "", `"-1MiB" is not a size: write a string such as "64MiB"`},
		{"9999999999GiB", "", `"9999999999GiB" is not a size: write a string such as "64MiB"`},
		{"much", "", `"much" is not a size: write a string such as "64MiB"`},
	}
	for _, tt := range tests {
		var z Size
		err := z.UnmarshalText([]byte(tt.text))
		if got := errText(err); got != tt.err {
			t.Errorf("%q: error %q, want %q", tt.text, got, tt.err)
		}
		if err == nil && z.String() != tt.want {
			t.Errorf("%q reads as %v, want %s", tt.text, z, tt.want)
		}
	}
}

func TestEveryRejectedErrorIsErrRejected(t *testing.T) {
	for _, err := range []error{&RejectedError{}, &RejectedError{OthersStored: true}, RejectAll(1, errors.New("bad tag"))} {
		if err = fmt.Errorf("http://h: %w", err); !errors.Is(err, ErrRejected) {
			t.Errorf("%v is not ErrRejected", err)
		}
		if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrGone) {
			t.Errorf("%v is more than ErrRejected", err)
		}
	}
}

func TestRejectAllNamesEachRecord(t *testing.T) {
	reason := errors.New("bad time")
	got := RejectAll(3, reason)
	if diff := cmp.Diff(map[int]error{0: reason, 1: reason, 2: reason}, got.Records, cmpopts.EquateErrors()); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if !got.OthersStored {
		t.Error("OthersStored is false although there are no others")
	}
}

func TestErrorTexts(t *testing.T) {
	err := error(&RetryAfterError{Wait: time.Minute, Err: errors.New("busy")})
	if got, want := err.Error(), "busy (retry after 1m0s)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := Invalid("path", "%q is relative", "x").Error(), `path: "x" is relative`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestRejectedErrorGivesTheFirstReason(t *testing.T) {
	tests := []struct {
		records map[int]error
		want    string
	}{
		{records: nil, want: "rejected"},
		{records: map[int]error{4: errors.New("bad time")}, want: "bad time"},
		{records: map[int]error{4: errors.New("bad time"), 2: errors.New("bad tag"), 9: errors.New("no field")},
			want: "bad tag (and 2 more rejected records)"},
	}
	for _, tt := range tests {
		if got := (&RejectedError{Records: tt.records}).Error(); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

func FuzzTypesReadWhatTheyWrite(f *testing.F) {
	for _, s := range []string{"10s", "1h0m0s", "64MiB", "1kB", "5", "-1s", "999999999999h", "18446744073709551616B"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var d, d2 Duration
		if d.UnmarshalText([]byte(s)) == nil {
			if err := d2.UnmarshalText([]byte(d.String())); err != nil || d2 != d {
				t.Errorf("%q reads as %v, which reads as %v, %v", s, d, d2, err)
			}
		}
		var z, z2 Size
		if z.UnmarshalText([]byte(s)) == nil {
			if err := z2.UnmarshalText([]byte(z.String())); err != nil || z2 != z {
				t.Errorf("%q reads as %v, which reads as %v, %v", s, z, z2, err)
			}
		}
	})
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
