package stdout

import (
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest"
)

func TestConformance(t *testing.T) {
	p := Plugin
	p.NewPusher = func(o plugin.Options, _ plugin.Env) (plugin.Pusher, error) {
		return newOutput(*o.(*Options), func() (*os.File, error) { return os.OpenFile(os.DevNull, os.O_WRONLY, 0) }), nil
	}
	o := Defaults()
	plugintest.Pusher(t, p, &o)
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		options Options
		want    string
	}{
		{Defaults(), "<nil>"},
		{Options{DataFormat: "influx", TimestampFormat: "rfc3339"}, "<nil>"},
		{Options{DataFormat: "csv", TimestampFormat: "unix"}, `data_format: unknown value "csv" (known: json, influx)`},
		{Options{DataFormat: "json", TimestampFormat: "iso"},
			`timestamp_format: unknown value "iso" (known: rfc3339, unix, unix_ms, unix_us, unix_ns)`},
	} {
		if diff := cmp.Diff(tt.want, fmt.Sprint(tt.options.Validate())); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}
