package servers

import (
	"fmt"
	"os/exec"
	"path/filepath"
)

// onOwnDisk puts a command into a mount namespace in which the mail lies on a
// file system of its own, where the options ask for one.
func (d *Dovecot) onOwnDisk(command ...string) []string {
	if d.opts.MailSize == "" {
		return command
	}
	uid, gid := mailUser(d.t)
	const mount = `mount -t tmpfs -o "$1" mail "$2" && shift 2 && exec "$@"`
	options := fmt.Sprintf("size=%s,mode=755,uid=%d,gid=%d", d.opts.MailSize, uid, gid)
	return append([]string{"unshare", "--mount", "sh", "-c", mount, "sh", options, filepath.Join(d.Dir, "mail")}, command...)
}

// ResizeMail gives the file system of MailSize another size while it is in use.
func (d *Dovecot) ResizeMail(size string) {
	d.t.Helper()
	d.proc.mu.Lock()
	defer d.proc.mu.Unlock()
	cmd := exec.Command("nsenter", "--mount", "--target", fmt.Sprint(d.proc.cmd.Process.Pid),
		"mount", "-o", "remount,size="+size, filepath.Join(d.Dir, "mail"))
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("%v: %s", err, out)
	}
}
