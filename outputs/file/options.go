package file

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/format"
)

// Options are the options of [[outputs.file]].
type Options struct {
	// Path of the file. Its directory must exist. Symbolic links are refused, and so are
	// descriptors of the program, such as /dev/stdout: use [[outputs.stdout]] for that.
	Path string `toml:"path"`
	// "json": one JSON object per line, or "influx": line protocol.
	DataFormat string `toml:"data_format"`
	// Format of times in JSON: "rfc3339" (with nanoseconds), "unix", "unix_ms", "unix_us" or
	// "unix_ns". Line protocol always has nanoseconds.
	TimestampFormat string `toml:"timestamp_format"`
	// Maximum size of the file, at least "64KiB". Before it would grow larger, PATH becomes
	// PATH.1, PATH.1 becomes PATH.2, and so on. "0B": no limit, for use with logrotate.
	RotationMaxSize plugin.Size `toml:"rotation_max_size"`
	// Number of rotated files to keep. 0: the file is deleted instead of rotated.
	RotationMaxArchives int `toml:"rotation_max_archives"`
}

// Defaults returns the options of an instance that sets none.
func Defaults() Options {
	return Options{
		Path:                "/var/log/sockwatch/listeners.jsonl",
		DataFormat:          "json",
		TimestampFormat:     "rfc3339",
		RotationMaxSize:     64 << 20,
		RotationMaxArchives: 5,
	}
}

// Example returns options for the example file.
func Example() Options { return Defaults() }

// Validate returns every error of the options, joined.
func (o *Options) Validate() error {
	var errs []error
	switch {
	case o.Path == "":
		errs = append(errs, plugin.Invalid("path", "must be set"))
	case strings.TrimSpace(o.Path) != o.Path:
		errs = append(errs, plugin.Invalid("path", "%q begins or ends with a blank", o.Path))
	case strings.HasSuffix(o.Path, "/") || slices.Contains([]string{".", ".."}, filepath.Base(o.Path)):
		errs = append(errs, plugin.Invalid("path", "%q is a directory: append a file name", o.Path))
	case descriptors.MatchString(filepath.Clean(o.Path)):
		errs = append(errs, plugin.Invalid("path", "%q is a descriptor of the program: use [[outputs.stdout]] instead", o.Path))
	}
	errs = append(errs, format.Validate(o.DataFormat, o.TimestampFormat))
	if o.RotationMaxSize != 0 && o.RotationMaxSize < minRotation {
		errs = append(errs, plugin.Invalid("rotation_max_size", "must be at least %v, or 0B for no rotation", plugin.Size(minRotation)))
	}
	if o.RotationMaxArchives < 0 || o.RotationMaxArchives > maxArchives {
		errs = append(errs, plugin.Invalid("rotation_max_archives", "must be at least 0 and at most %d", maxArchives))
	}
	return errors.Join(errs...)
}

// descriptors matches paths that lead to a file that the program has open.
var descriptors = regexp.MustCompile(`^/dev/std(in|out|err)$|^/dev/fd/|^/proc/[^/]+/(task/[^/]+/)?fd/`)

// minRotation is enough for many points. A smaller file would be rotated at every write.
const minRotation = 64 << 10

// maxArchives limits the renames of one rotation.
const maxArchives = 1000

// Exclusive names the file and its rotated files.
func (o *Options) Exclusive() []string {
	path, err := filepath.Abs(o.Path)
	if err != nil { // the working directory is not known
		path = filepath.Clean(o.Path)
	}
	names := []string{fmt.Sprintf("path %q", path)}
	if o.RotationMaxSize > 0 {
		for i := range o.RotationMaxArchives {
			names = append(names, fmt.Sprintf("path %q", fmt.Sprintf("%s.%d", path, i+1)))
		}
	}
	return names
}
