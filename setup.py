"Build settings come from settings.ini, and from nowhere else."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
ini = ConfigParser(delimiters=['='], interpolation=None)
ini.read(here/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
lines = lambda key: cfg.get(key, '').split()
extras = {key.removesuffix('_requirements'): lines(key) for key in cfg if key.endswith('_requirements')}

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], license='MIT',
    author=cfg['author'], url=cfg['git_url'], keywords=cfg['keywords'].split(),
    long_description=(here/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    packages=find_packages(include=['effssl', 'effssl.*']), include_package_data=True,
    python_requires=f">={cfg['min_python']}", install_requires=lines('requirements'), extras_require=extras,
    entry_points={'console_scripts': lines('console_scripts'), 'nbdev': [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"]},
)
