package influxdb

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Values with which every request would fail.
func TestMistypedAddresses(t *testing.T) {
	for _, test := range []struct {
		url, database, want string
	}{
		{url: "http://h:65535", database: "d", want: "<nil>"},
		{url: "http://[::1]:8086", database: "d", want: "<nil>"},
		{url: "http://[fe80::1%25eth0]", database: "d", want: "<nil>"},
		{url: "http://10.0.0.1", database: "d", want: "<nil>"},
		{url: "http://influx-2", database: "d", want: "<nil>"},
		{url: "http://h:65536", database: "d", want: `urls: the port of "http://h:65536" is not a number from 1 to 65535`},
		{url: "http://h:0", database: "d", want: `urls: the port of "http://h:0" is not a number from 1 to 65535`},
		{url: "http://127.0.0.300:8086", database: "d", want: `urls: the host "127.0.0.300" is not an IP address`},
		{url: "http://h", database: "d\n", want: "database: contains a control character, such as a line end"},
	} {
		o := Defaults()
		o.URLs, o.Database = []string{test.url}, test.database
		if diff := cmp.Diff(test.want, fmt.Sprint(o.Validate())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.url, diff)
		}
	}
}
