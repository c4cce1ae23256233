#compdef exclusive
# zsh completion for exclusive: for a file `_exclusive` in $fpath, or for eval.
_exclusive() {
  local line
  local -a answers
  for line in "${(@f)$("$words[1]" completion --answer "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
    case $line in
      :files) _files ;;
      :directories) _files -/ ;;
      ':command '*)
        shift "${line#:command }" words
        ((CURRENT -= ${line#:command }))
        _normal
        ;;
      ?*) answers+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
    esac
  done
  (($#answers)) && _describe -V exclusive answers
}
if [[ $funcstack[1] == _exclusive ]]; then
  _exclusive "$@"
else
  compdef _exclusive exclusive
fi
