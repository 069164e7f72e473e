package server

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"activerelay/server/internal/store"
)

// owner is the lock on an SQLite database, which one process serves at a time. Two would each count rate limits of their
// own, hear late of each other's changes, and both write the mark beside the file. The lock is on a file of its own, since
// closing any descriptor of the database would drop those of SQLite. Who only migrates does not take it.
type owner struct {
	file *os.File // nil on PostgreSQL, which serves several
}

// own takes the database until it is released or the process ends, however it ends.
func own(opened *store.Store) (owner, error) {
	database := opened.FilePath()
	if database == "" {
		return owner{}, nil
	}
	file, err := os.OpenFile(database+".owner", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return owner{}, fmt.Errorf("own database: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%s serves %s already; several replicas need PostgreSQL", ownerOf(file), database)
	}
	if err == nil {
		err = signOwner(file)
	}
	if err != nil {
		return owner{}, errors.Join(fmt.Errorf("own database: %w", err), file.Close())
	}
	return owner{file: file}, nil
}

func (o owner) release() error {
	if o.file == nil {
		return nil
	}
	return o.file.Close()
}

// signOwner leaves the process id for the error text of a second one.
func signOwner(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

func ownerOf(file *os.File) string {
	text, err := io.ReadAll(io.LimitReader(file, 32))
	pid := strings.TrimSpace(string(text))
	if err != nil || pid == "" {
		return "another relay-server"
	}
	return "another relay-server (process " + pid + ")"
}
