package push

import "testing"

func TestRefusesTimes(t *testing.T) {
	for _, test := range []struct {
		status int
		text   string
		want   bool
	}{
		{status: 400, text: "out of order sample\n", want: true},
		{status: 400, text: `the sample has been rejected (err-mimir-sample-timestamp-too-old). series: 'x'`, want: true},
		{status: 409, text: "store locally for endpoint: conflict: out of bounds", want: true},
		{status: 500, text: "too old sample", want: true},
		{status: 500, text: "disk full: too old sample", want: false},
		{status: 503, text: "out of order sample", want: false},
		{status: 400, text: `invalid label value in x{process="out of order sample"}`, want: false},
		{status: 400, text: "bad name", want: false},
	} {
		if got := RefusesTimes(test.status, test.text); got != test.want {
			t.Errorf("RefusesTimes(%d, %q) = %v, want %v", test.status, test.text, got, test.want)
		}
	}
}
