package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"migproxy/aliasresolve"
	"migproxy/config"
	"migproxy/migrator"
)

// aliasRules reads how further addresses are found, by domain; only domains in
// which they are looked for have an entry. An error names the key, and the file
// with the line.
func aliasRules(cfg *config.Config) (map[string]*migrator.Aliases, error) {
	all := map[string]*migrator.Aliases{}
	for i, d := range cfg.Domains {
		modes := map[config.AccessMode]aliasresolve.Mode{config.AccessStandard: aliasresolve.Standard, config.AccessExtended: aliasresolve.Extended}
		mode, wanted := modes[d.AccessMode]
		accounts, digest, err := readAccounts(d.Aliases.AccountsFile)
		if err != nil {
			return nil, fmt.Errorf("domains[%d].aliases.accounts_file: %s: %w", i, d.Aliases.AccountsFile, err)
		}
		if !wanted {
			continue
		}
		rules := aliasresolve.Rules{Mode: mode, IgnoreXEnvelopeTo: d.Extended.IgnoreXEnvelopeTo, IgnoreReceived: d.Extended.IgnoreReceived,
			Domains: aliasresolve.NewDomains(d.Name), Minimum: int64(d.Aliases.Minimum), Approval: d.Aliases.Approval}
		version := sha256.Sum256(fmt.Appendf(nil, "%+v %s", rules, digest))
		all[d.Name] = &migrator.Aliases{Rules: rules, Accounts: accounts, Version: hex.EncodeToString(version[:8])}
	}
	return all, nil
}

// readAccounts reads a list of accounts, and gives a digest of it; nothing where
// none is named.
func readAccounts(path string) (*aliasresolve.Accounts, string, error) {
	if path == "" {
		return nil, "", nil
	}
	f, err := os.Open(path)
	if err != nil {
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			err = pe.Err
		}
		return nil, "", fmt.Errorf("cannot be read (%w); name a file that is there and that this user may read", err)
	}
	defer func() { _ = f.Close() }() // it was read only
	h := sha256.New()
	accounts, err := aliasresolve.ReadAccounts(io.TeeReader(f, h))
	return accounts, hex.EncodeToString(h.Sum(nil)), err
}
