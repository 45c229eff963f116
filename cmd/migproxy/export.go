package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"migproxy/admin"
)

// export writes the messages that were set aside, each into a file of its own
// named after its number. A file that is there already is left alone: its
// content can only be the same, or the administrator's.
func export(ctx context.Context, c *admin.Client, a admin.AccountDetail, dir string, told io.Writer) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("--export: %w", err)
	}
	for _, m := range a.SetAsideMessages {
		path := filepath.Join(dir, fmt.Sprintf("%d.eml", m.ID))
		err := exportOne(ctx, c, a.Address, m.ID, path)
		switch {
		case errors.Is(err, fs.ErrExist):
			_, err = fmt.Fprintf(told, "%s is there already\n", path)
		case err == nil:
			_, err = fmt.Fprintf(told, "%s written (%s, UID %d)\n", path, printable(folderName(m.Folder)), m.UID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// exportOne writes beside the file and renames, so that a file of that name is
// always whole.
func exportOne(ctx context.Context, c *admin.Client, address string, id int64, path string) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".export-*") // mode 0600
	if err != nil {
		return fmt.Errorf("--export: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if err := c.SetAside(ctx, address, id, f); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("--export: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("--export: %w", err)
	}
	return nil
}
