package prometheus

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/prometheus/exporter-toolkit/web"
)

// quoted is what an error of the YAML parser shows of the file: perhaps a secret.
var quoted = regexp.MustCompile("`[^`]*`")

// checkWebConfig returns why web_config_file cannot be used, and warns where it,
// with its password hashes, is open to everybody.
func (e *endpoint) checkWebConfig() error {
	file := e.opts.WebConfigFile
	if file == "" {
		return nil
	}
	if err := web.Validate(file); err != nil {
		return fmt.Errorf("web_config_file %q: %s", file, quoted.ReplaceAllString(err.Error(), "`...`"))
	}
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("web_config_file: %w", err)
	}
	if info.Mode().Perm()&0o004 != 0 {
		e.env.Log.Warn("web_config_file can be read by every user of this host; chmod o-r would mend that", "file", file)
	}
	return nil
}

// warnOpen warns once where anybody who reaches this host reads the metrics.
func (e *endpoint) warnOpen() {
	if e.opts.WebConfigFile != "" {
		return
	}
	var open []string
	for _, l := range e.listeners {
		if !isLoopback(l.Addr()) {
			open = append(open, l.Addr().String())
		}
	}
	if len(open) > 0 {
		e.env.Log.Warn("what listens here and who owns it is shown to everybody who reaches this address; "+
			"web_config_file (TLS, basic auth) or a loopback address would limit that", "listen", strings.Join(open, ", "))
	}
}
