package profile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"
)

// Save writes the current context and the contexts back and leaves the rest of
// the file as it is, comments included. The file appears whole or not at all,
// with mode 0600.
func (f *File) Save() error {
	document := yaml.MapSlice{}
	comments := yaml.CommentMap{}
	text, err := os.ReadFile(f.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	if err := yaml.UnmarshalWithOptions(text, &document, yaml.CommentToMap(comments)); err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	document = put(document, "current-context", f.Current)
	document = put(document, "contexts", f.Contexts)
	encoded, err := yaml.MarshalWithOptions(document, yaml.WithComment(comments))
	if err != nil {
		return fmt.Errorf("encoding the configuration: %w", err)
	}
	return replace(f.Path, encoded)
}

func put(document yaml.MapSlice, key string, value any) yaml.MapSlice {
	for i := range document {
		if document[i].Key == key {
			document[i].Value = value
			return document
		}
	}
	return append(document, yaml.MapItem{Key: key, Value: value})
}

// replace writes beside the file and renames over it.
func replace(path string, content []byte) error {
	directory := filepath.Dir(path)
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return fmt.Errorf("making the configuration directory: %w", err)
	}
	temporary, err := os.CreateTemp(directory, ".config-*.yaml") // mode 0600
	if err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(content)
	err = errors.Join(err, temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	return nil
}
